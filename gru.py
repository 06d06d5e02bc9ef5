"""Several GRUs side by side, unrolled through time on the CPU in as few operations as their definition allows.

The GRUs of one layer read the same input, so a timestep of all is one compiled call (`policy_kernels.gru_forward`), and
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

from policy_kernels import gru_backward, gru_forward


def room(*shape: int) -> np.ndarray:
    """Return zeros that begin where vector instructions like to read; numpy's own begin anywhere."""
    return torch.zeros(shape).numpy()


def batch_last(tensor: Tensor) -> np.ndarray:
    """[..., B, units] -> an array [..., units, B], contiguous: a copy only where it does not lie like that already."""
    return tensor.mT.contiguous().numpy()


def batch_first(array: np.ndarray) -> Tensor:
    """An array [..., units, B] as the tensor [..., B, units] that it holds."""
    return torch.from_numpy(array).mT


class JoinedGRUs(NamedTuple):
    """The weights of GRUs with hidden sizes s_1, s_2, ... (H their sum), one GRU after the other; of each the gates in
    torch's order: reset, update, new.

    Attributes:
        weight_ih: [3H, input_size].
        weight_hh: [sum of 3 * s**2], per GRU [3s, s].
        bias: [4H], per GRU of r and z the sum of both biases, of n that of the input, and that of the state.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor


def join_grus(grus: Sequence[nn.GRU]) -> JoinedGRUs:
    """Return one set of weights that computes all `grus`, differentiable with respect to theirs."""
    biases = []
    for gru in grus:
        of_gates, of_new = 2 * gru.hidden_size, gru.hidden_size
        (of_input, of_input_n), (of_state, of_state_n) = (
            bias.split([of_gates, of_new]) for bias in (gru.bias_ih_l0, gru.bias_hh_l0)
        )
        biases += [of_input + of_state, of_input_n, of_state_n]
    return JoinedGRUs(
        torch.cat([gru.weight_ih_l0 for gru in grus]),
        torch.cat([gru.weight_hh_l0.flatten() for gru in grus]),
        torch.cat(biases),
    )


class Activations:
    """What T timesteps of B agents compute in GRUs of `sizes` hidden units, and the backward pass reads."""

    def __init__(self, steps: int, batch: int, sizes: Sequence[int]):
        hidden = sum(sizes)
        self.sizes = np.array(sizes)
        self.gates = room(steps, 4 * hidden, batch)
        self.after = room(steps, hidden, batch)
        self.before = room(hidden, batch)
        self.states = list(batch_first(self.after))  # per timestep, [B, H]

    def step(
        self, t: int, inputs: np.ndarray, state: np.ndarray, keep: np.ndarray, weights: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Timestep t: inputs [input_size, B], state [H, B], keep [B] (0 where an episode begins), `JoinedGRUs` as
        arrays -> state [H, B]."""
        gru_forward(self.sizes, *weights, inputs, state, keep, self.gates[t], self.after[t], self.before)
        return self.after[t]

    def steps(self, inputs: np.ndarray, state: np.ndarray, keep: np.ndarray, weights: Sequence[np.ndarray]) -> None:
        """All timesteps, inputs [T, input_size, B] and keep [T, B]."""
        for t in range(len(keep)):
            state = self.step(t, inputs[t], state, keep[t], weights)


def unroll_grus(
    inputs: Tensor,
    state: Tensor,
    keep: Tensor,
    weights: JoinedGRUs,
    sizes: Sequence[int],
    activations: Activations | None = None,
) -> Tensor:
    """Run joined GRUs over T timesteps for B agents.

    Args:
        inputs: [T, B, input_size].
        state: [B, H], the hidden states before the first step.
        keep: [T, B], 0 where an episode begins at that step (its agent's state returns to zero), else 1.
        weights: of GRUs with these `sizes`, H in all.
        activations: what was kept of these very steps under the same weights, if it was.

    Returns:
        [T, B, H], the hidden states after each step.
    """
    if not inputs.is_cpu:
        return unroll_in_tensor_operations(inputs, state, keep, weights, sizes)
    return _Recurrence.apply(inputs, state, keep, *weights, sizes, activations)


def unroll_in_tensor_operations(
    inputs: Tensor, state: Tensor, keep: Tensor, weights: JoinedGRUs, sizes: Sequence[int]
) -> Tensor:
    """What `unroll_grus` computes, for devices that compiled functions do not run on."""
    weight_ih = weights.weight_ih.split([3 * size for size in sizes])
    weight_hh = weights.weight_hh.split([3 * size * size for size in sizes])
    bias_ih, bias_hh = [], []
    for size, bias in zip(sizes, weights.bias.split([4 * size for size in sizes]), strict=True):
        bias_ih.append(bias[: 3 * size])
        bias_hh.append(torch.cat([torch.zeros_like(bias[: 2 * size]), bias[3 * size :]]))
    weight_hh = [weight.view(3 * size, size) for weight, size in zip(weight_hh, sizes, strict=True)]
    grus = list(zip(weight_ih, weight_hh, bias_ih, bias_hh, strict=True))
    hidden = []
    for inputs_now, keep_now in zip(inputs, keep[..., None], strict=True):
        before = (state * keep_now).split(sizes, dim=1)
        state = torch.cat([torch.gru_cell(inputs_now, h, *gru) for h, gru in zip(before, grus, strict=True)], dim=1)
        hidden.append(state)
    return torch.stack(hidden)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, state, keep, weight_ih, weight_hh, bias, sizes, activations):
        read, before, weights = batch_last(inputs), batch_last(state), [w.numpy() for w in (weight_ih, weight_hh, bias)]
        if activations is None:
            activations = Activations(*keep.shape, sizes)
            activations.steps(read, before, keep.numpy(), weights)
        ctx.read, ctx.before, ctx.keep, ctx.weights, ctx.activations = read, before, keep.numpy(), weights, activations
        return batch_first(activations.after)

    @staticmethod
    def backward(ctx, grad_after):
        kept, weights = ctx.activations, ctx.weights
        grads = [np.zeros_like(array) for array in (ctx.read, ctx.before, *weights)]
        gru_backward(
            kept.sizes, *weights[:2], ctx.read, ctx.before, ctx.keep, kept.gates, kept.after, batch_last(grad_after),
            *grads[:-1], grads[-1][:, None], kept.before, np.empty_like(kept.gates[0]),
        )  # fmt: skip
        return *map(batch_first, grads[:2]), None, *map(torch.from_numpy, grads[2:]), None, None
