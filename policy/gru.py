"""Several GRUs side by side, unrolled through time on the CPU in as few operations as their definition allows.

The GRUs of one layer read the same input, so a timestep of all is one compiled call (`policy.kernels.gru_forward`), and
the gradient of all timesteps another: no graph node per timestep.

A rollout runs the same steps, one at a time, before the unroll that learns from it. What they computed is kept
(`Activations`), and the unroll then starts from there instead of computing it again.

Tensors are [T, B, units] as everywhere in torch; in memory they lie as the compiled functions want them, [T, units, B].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from policy.kernels import gru_backward, gru_forward


def room(*shape: int) -> np.ndarray:
    """Return zeros that begin at a multiple of 64 bytes: numpy's own begin anywhere, vector instructions read them
    more slowly, and torch's products may come out different in the last bit."""
    return torch.zeros(shape).numpy()


def batch_last(tensor: Tensor) -> np.ndarray:
    """[..., B, units] -> an array [..., units, B], contiguous: a copy only where it does not lie like that already."""
    return tensor.mT.contiguous().numpy()


def batch_first(array: np.ndarray) -> Tensor:
    """An array [..., units, B] as the tensor [..., B, units] that it holds."""
    return torch.from_numpy(array).mT


class GRUs(NamedTuple):
    """The weights of GRUs with hidden sizes s_1, s_2, ... (H their sum), of each kind one per GRU, as torch names them:
    weight_ih [3s, input_size], weight_hh [3s, s], and biases [3s]."""

    weight_ih: tuple[Tensor, ...]
    weight_hh: tuple[Tensor, ...]
    bias_ih: tuple[Tensor, ...]
    bias_hh: tuple[Tensor, ...]

    @staticmethod
    def of(grus: Sequence[nn.GRU]) -> "GRUs":
        """Return the weights of these."""
        return GRUs(*(tuple(getattr(gru, f"{kind}_l0") for gru in grus) for kind in GRUs._fields))


class Activations:
    """What T timesteps of B agents compute in GRUs of `sizes` hidden units, and the backward pass reads."""

    def __init__(self, steps: int, batch: int, sizes: Sequence[int]):
        hidden = sum(sizes)
        self.gates = room(steps, 4 * hidden, batch)
        self.after = room(steps, hidden, batch)
        self.before = room(hidden, batch)
        self.states = list(batch_first(self.after))  # per timestep, [B, H]

    def step(self, t: int, inputs: np.ndarray, state: np.ndarray, keep: np.ndarray, weights: GRUs) -> np.ndarray:
        """Timestep t: inputs [input_size, B], state [H, B], keep [B] (0 where an episode begins), weights as arrays ->
        state [H, B]."""
        gru_forward(*weights, inputs, state, keep, self.gates[t], self.after[t], self.before)
        return self.after[t]

    def steps(self, inputs: np.ndarray, state: np.ndarray, keep: np.ndarray, weights: GRUs) -> None:
        """All timesteps, inputs [T, input_size, B] and keep [T, B]."""
        for t in range(len(keep)):
            state = self.step(t, inputs[t], state, keep[t], weights)


def unroll_grus(
    inputs: Tensor,
    state: Tensor,
    keep: Tensor,
    weights: GRUs,
    activations: Activations | None = None,
) -> Tensor:
    """Run GRUs side by side over T timesteps for B agents.

    Args:
        inputs: [T, B, input_size].
        state: [B, H], the hidden states before the first step.
        keep: [T, B], 0 where an episode begins at that step (its agent's state returns to zero), else 1.
        weights: of GRUs with H hidden units in all.
        activations: what was kept of these very steps under the same weights, if it was.

    Returns:
        [T, B, H], the hidden states after each step.
    """
    if not inputs.is_cpu:
        return unroll_in_tensor_operations(inputs, state, keep, weights)
    return _Recurrence.apply(inputs, state, keep, activations, *(weight for kind in weights for weight in kind))


def unroll_in_tensor_operations(inputs: Tensor, state: Tensor, keep: Tensor, weights: GRUs) -> Tensor:
    """What `unroll_grus` computes, for devices that compiled functions do not run on."""
    grus = list(zip(*weights, strict=True))
    sizes = [weight.shape[1] for weight in weights.weight_hh]
    hidden = []
    for inputs_now, keep_now in zip(inputs, keep[..., None], strict=True):
        before = (state * keep_now).split(sizes, dim=1)
        state = torch.cat([torch.gru_cell(inputs_now, h, *gru) for h, gru in zip(before, grus, strict=True)], dim=1)
        hidden.append(state)
    return torch.stack(hidden)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, state, keep, activations, *weights):
        arrays = [weight.numpy() for weight in weights]
        count = len(arrays) // 4
        grus = GRUs(*(tuple(arrays[first : first + count]) for first in range(0, len(arrays), count)))
        ctx.read, ctx.before, ctx.keep, ctx.grus = batch_last(inputs), batch_last(state), keep.numpy(), grus
        if activations is None:
            activations = Activations(*keep.shape, [weight.shape[1] for weight in grus.weight_hh])
            activations.steps(ctx.read, ctx.before, ctx.keep, grus)
        ctx.kept = activations
        return batch_first(activations.after)

    @staticmethod
    def backward(ctx, grad_after):
        kept = ctx.kept
        grads = [room(*array.shape) for array in (ctx.read, ctx.before)]
        grad_weights = [tuple(room(*weight.shape) for weight in kind) for kind in ctx.grus]
        gru_backward(
            *ctx.grus[:2], ctx.read, ctx.before, ctx.keep, kept.gates, kept.after, batch_last(grad_after),
            *grads, *grad_weights, kept.before, room(*kept.gates[0].shape), room(*kept.gates[0].shape),
        )  # fmt: skip
        flat = (torch.from_numpy(grad) for kind in grad_weights for grad in kind)
        return *map(batch_first, grads), None, None, *flat
