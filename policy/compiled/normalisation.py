"""Layer normalisation without weights, `torch.nn.functional.layer_norm`: a timestep, and the gradient of many."""

import numpy as np
import torch
from torch import Tensor

from policy.compiled.buffers import aligned_zeros, batch_first, batch_last
from policy.compiled.kernels import normalise, normalise_backward


class NormalBuffers:
    """T timesteps of B agents' vectors of `size` numbers, normalised.

    Attributes:
        normal, scale: [T, size, B] and [T, B], what they became, and what they were multiplied by for that.
    """

    def __init__(self, steps: int, size: int, batch: int):
        self.normal, self.scale = aligned_zeros(steps, size, batch), aligned_zeros(steps, batch)

    def step(self, t: int, inputs: np.ndarray) -> np.ndarray:
        """Normalise those of timestep t: [size, B] -> [size, B], which is kept."""
        normalise(inputs, self.normal[t], self.scale[t])
        return self.normal[t]

    def unroll(self, inputs: Tensor) -> Tensor:
        """All timesteps, which have been run, as part of the graph: [T, B, size] -> [T, B, size]."""
        return _Normalise.apply(inputs, self)


class _Normalise(torch.autograd.Function):
    """inputs [T, B, size] -> the same normalised, which are in the buffers already."""

    @staticmethod
    def forward(ctx, inputs, buffers):
        ctx.buffers = buffers
        return batch_first(buffers.normal)

    @staticmethod
    def backward(ctx, grad):
        grad_inputs = aligned_zeros(*ctx.buffers.normal.shape)
        normalise_backward(ctx.buffers.normal, ctx.buffers.scale, batch_last(grad), grad_inputs)
        return batch_first(grad_inputs), None
