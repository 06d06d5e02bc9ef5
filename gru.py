"""Several GRUs side by side, unrolled through time on the CPU in as few operations as their definition allows.

The GRUs of one layer read the same input, so their weights are joined: a timestep is one compiled call
(`policy_kernels.gru_forward`) with one product of the input, one of each GRU's hidden state, and all gates. The
gradient is written out too: no graph node per timestep, and every weight gradient is one product at the end.

A rollout runs the same steps, one at a time, before the unroll that learns from it. What they computed is kept
(`Activations`), and the unroll then starts from there instead of computing it again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from policy_kernels import gru_backward, gru_forward


class JoinedGRUs(NamedTuple):
    """The weights of GRUs with hidden sizes s_1, s_2, ... (H their sum), one GRU after the other; of each the gates in
    torch's order: reset, update, new. Matrices are transposed: a product is `inputs @ weight_ih`.

    Attributes:
        weight_ih: [input_size, 3H].
        weight_hh: [sum of 3 * s**2], per GRU [s, 3s].
        bias_ih, bias_hh: [3H].
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


def join_grus(grus: Sequence[nn.GRU]) -> JoinedGRUs:
    """Return one set of weights that computes all `grus`, differentiable with respect to theirs."""
    return JoinedGRUs(
        torch.cat([gru.weight_ih_l0 for gru in grus]).t().contiguous(),
        torch.cat([gru.weight_hh_l0.t().flatten() for gru in grus]),
        torch.cat([gru.bias_ih_l0 for gru in grus]),
        torch.cat([gru.bias_hh_l0 for gru in grus]),
    )


class Activations:
    """What T timesteps of B agents compute in GRUs of `sizes` hidden units, and the backward pass reads."""

    def __init__(self, steps: int, batch: int, sizes: Sequence[int]):
        hidden = sum(sizes)
        self.sizes = np.array(sizes)
        self.kept = np.zeros((5, steps * batch * hidden), np.float32)
        self.after = np.zeros((steps, batch, hidden), np.float32)
        self.room = np.zeros((2, 3 * batch * hidden), np.float32)

    def step(
        self, t: int, inputs: np.ndarray, state: np.ndarray, keep: np.ndarray, weights: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Timestep t: inputs [B, input_size], state [B, H], keep [B] (0 where an episode begins), `JoinedGRUs` as
        arrays -> state [B, H]."""
        gru_forward(self.sizes, *weights, t, inputs, state, keep, self.kept, self.after, self.room)
        return self.after[t]


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
    gates = [3 * size for size in sizes]
    weight_hh = weights.weight_hh.split([3 * size * size for size in sizes])
    weight_hh = [weight.view(size, 3 * size).t() for weight, size in zip(weight_hh, sizes, strict=True)]
    weight_ih, bias_ih, bias_hh = (
        weight.split(gates) for weight in (weights.weight_ih.t(), weights.bias_ih, weights.bias_hh)
    )
    grus = list(zip(weight_ih, weight_hh, bias_ih, bias_hh, strict=True))
    hidden = []
    for inputs_now, keep_now in zip(inputs, keep[..., None], strict=True):
        before = (state * keep_now).split(sizes, dim=1)
        state = torch.cat([torch.gru_cell(inputs_now, h, *gru) for h, gru in zip(before, grus, strict=True)], dim=1)
        hidden.append(state)
    return torch.stack(hidden)


_rooms: dict[tuple[int, ...], list[np.ndarray]] = {}


def _room(*sizes: int) -> list[np.ndarray]:
    """Return arrays to work in, always the same for the same sizes: fresh memory takes as long to get as to fill."""
    if sizes not in _rooms:
        _rooms[sizes] = [np.empty(size, np.float32) for size in sizes]
    return _rooms[sizes]


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, state, keep, weight_ih, weight_hh, bias_ih, bias_hh, sizes, activations):
        if activations is None:
            activations = Activations(*keep.shape, sizes)
            now = state.numpy()
            weights = [weight.numpy() for weight in (weight_ih, weight_hh, bias_ih, bias_hh)]
            for t in range(len(keep)):
                now = activations.step(t, inputs[t].numpy(), now, keep[t].numpy(), weights)
        ctx.activations = activations
        ctx.save_for_backward(inputs, state, keep, weight_ih, weight_hh, bias_ih, bias_hh)
        return torch.from_numpy(activations.after)

    @staticmethod
    def backward(ctx, grad_after):
        inputs, state, keep, weight_ih, weight_hh, bias_ih, bias_hh = ctx.saved_tensors
        kept = ctx.activations
        grads = [torch.empty_like(tensor) for tensor in (inputs, state, weight_ih, weight_hh, bias_ih, bias_hh)]
        grad_inputs, *other_grads = (grad.numpy() for grad in grads)
        gru_backward(
            kept.sizes,
            weight_ih.numpy(),
            weight_hh.numpy(),
            inputs.flatten(0, 1).numpy(),
            keep.numpy(),
            kept.kept,
            grad_after.contiguous().numpy(),
            grad_inputs.reshape(-1, grad_inputs.shape[-1]),
            *other_grads,
            *_room(3 * kept.after.size, 3 * kept.after.size, 6 * state.numel()),
        )
        grad_inputs, grad_state, *grad_weights = grads
        return grad_inputs, grad_state, None, *grad_weights, None, None
