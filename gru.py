"""Several GRUs side by side, unrolled through time in as few tensor operations as their definition allows.

The GRUs of one layer read the same input, so their weights are joined once per unroll: one product with the input for
all timesteps together, and per timestep one product with all hidden states (block-diagonal) and one set of gates. The
gradient is written out by hand: no graph node per timestep, and every weight gradient is one product at the end.

A rollout runs the same steps, one at a time, before the unroll that learns from it. What they computed can be kept
(`Activations`), and the unroll then starts from there instead of computing it again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class JoinedGRUs(NamedTuple):
    """The weights of GRUs with hidden sizes s_1, s_2, ... (H their sum); gates ordered reset, update, new as in torch.

    Attributes:
        weight_ih: [3H, input_size].
        weight_hh: [3H, H], zero wherever one GRU would read another's state.
        bias_ih, bias_hh: [3H].
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


def join_grus(grus: Sequence[nn.GRU]) -> JoinedGRUs:
    """Return one set of weights that computes all `grus`, differentiable with respect to theirs."""

    def by_gate(name: str) -> list[list[Tensor]]:
        chunks = [getattr(gru, name).chunk(3) for gru in grus]
        return [[chunk[gate] for chunk in chunks] for gate in range(3)]

    def stack(name: str) -> Tensor:
        return torch.cat([part for gate in by_gate(name) for part in gate])

    return JoinedGRUs(
        stack("weight_ih_l0"),
        torch.cat([torch.block_diag(*gate) for gate in by_gate("weight_hh_l0")]),
        stack("bias_ih_l0"),
        stack("bias_hh_l0"),
    )


class Activations(NamedTuple):
    """What the backward pass reads of T timesteps of B agents with H hidden units.

    Attributes:
        before: [T, B, H], the states as each step reads them, after resets.
        recurrent: [T, B, 3H], their product with weight_hh.
        reset_update: [T, B, 2H], the reset and update gates.
        new: [T, B, H], the candidate states.
        after: [T, B, H], the states after each step.
    """

    before: Tensor
    recurrent: Tensor
    reset_update: Tensor
    new: Tensor
    after: Tensor

    @classmethod
    def empty(cls, steps: int, batch: int, hidden: int, like: Tensor) -> "Activations":
        return cls(*(like.new_empty(steps, batch, factor * hidden) for factor in (1, 3, 2, 1, 1)))

    def step(self, t: int) -> "Activations":
        """Return a view of timestep t alone."""
        return Activations(*(tensor[t : t + 1] for tensor in self))


def unroll_grus(
    inputs: Tensor,
    state: Tensor,
    keep: Tensor,
    weights: JoinedGRUs,
    activations: Activations | None = None,
) -> Tensor:
    """Run joined GRUs over T timesteps for B agents.

    Args:
        inputs: [T, B, input_size].
        state: [B, H], the hidden states before the first step.
        keep: [T, B], 0 where an episode begins at that step (its agent's state returns to zero), else 1.
        weights: of H hidden units in all.
        activations: without gradients, where to keep what is computed; with gradients, what was kept of these very
            steps under the same weights.

    Returns:
        [T, B, H], the hidden states after each step.
    """
    gates = nn.functional.linear(inputs, weights.weight_ih, weights.bias_ih)
    keep = keep.unsqueeze(-1)
    if torch.is_grad_enabled():
        return _Recurrence.apply(gates, state, keep, weights.weight_hh, weights.bias_hh, activations)
    return _run(gates, state, keep, weights.weight_hh, weights.bias_hh, activations).after


def _run(gates, state, keep, weight_hh, bias_hh, activations=None) -> Activations:
    """h_t = (1 - z) * n + z * h with r, z = sigmoid(i + U h), n = tanh(i_n + r * (U_n h)): torch.nn.GRU's equations."""
    steps, batch, hidden = *gates.shape[:2], state.shape[1]
    kept = activations or Activations.empty(steps, batch, hidden, gates)
    weight = weight_hh.t()
    for gate, keep_t, before, recurrent, reset_update, new, after in zip(gates, keep, *kept, strict=True):
        torch.mul(state, keep_t, out=before)
        torch.addmm(bias_hh, before, weight, out=recurrent)
        torch.add(gate[:, : 2 * hidden], recurrent[:, : 2 * hidden], out=reset_update).sigmoid_()
        reset, update = reset_update.split(hidden, dim=1)
        torch.addcmul(gate[:, 2 * hidden :], reset, recurrent[:, 2 * hidden :], out=new).tanh_()
        state = torch.lerp(new, before, update, out=after)
    return kept


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gates, state, keep, weight_hh, bias_hh, activations):
        if activations is None:
            activations = _run(gates, state, keep, weight_hh, bias_hh)
        ctx.save_for_backward(*activations, keep, weight_hh)
        return activations.after.view_as(activations.after)

    @staticmethod
    def backward(ctx, grad_after):
        before, recurrent, reset_update, new, _, keep, weight_hh = ctx.saved_tensors
        hidden = new.shape[2]
        reset, update = reset_update.split(hidden, dim=2)
        # What does not depend on the gradient is computed for all timesteps at once.
        new_slope = (1 - update) * (1 - new * new)
        update_slope = (before - new) * update * (1 - update)
        reset_slope = recurrent[..., 2 * hidden :] * reset * (1 - reset)
        grad_gates = torch.empty_like(recurrent)
        grad_recurrent = torch.empty_like(recurrent)
        carried = torch.zeros_like(new[0])
        for t in reversed(range(new.shape[0])):
            grad = grad_after[t] + carried
            grad_new = torch.mul(grad, new_slope[t], out=grad_gates[t, :, 2 * hidden :])
            torch.mul(grad, update_slope[t], out=grad_recurrent[t, :, hidden : 2 * hidden])
            torch.mul(grad_new, reset_slope[t], out=grad_recurrent[t, :, :hidden])
            torch.mul(grad_new, reset[t], out=grad_recurrent[t, :, 2 * hidden :])
            carried = torch.addmm(grad.mul_(update[t]), grad_recurrent[t], weight_hh).mul_(keep[t])
        grad_gates[..., : 2 * hidden] = grad_recurrent[..., : 2 * hidden]
        flat = grad_recurrent.flatten(0, 1)
        grad_weight = flat.t() @ before.flatten(0, 1)
        return grad_gates, carried, None, grad_weight, flat.sum(0), None
