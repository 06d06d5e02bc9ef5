"""GRUs side by side, unrolled through time: torch.nn.GRU's equations.

The GRUs of one layer read the same input, so a timestep of all is one compiled call (`kernels.gru_forward`), and the
gradient of all timesteps another: no graph node per timestep. A rollout runs the same steps, one at a time, before the
unroll that learns from it; what they computed is kept in buffers, and the unroll starts from there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from policy.compiled.buffers import aligned_zeros, batch_first, batch_last
from policy.compiled.kernels import gru_backward, gru_forward


class GRUs(NamedTuple):
    """The weights of GRUs with hidden sizes s_1, s_2, ... (H their sum), of each kind one per GRU, as torch names them:
    weight_ih [3s, input_size], weight_hh [3s, s], and biases [3s]."""

    weight_ih: tuple
    weight_hh: tuple
    bias_ih: tuple
    bias_hh: tuple

    @staticmethod
    def of(grus: Sequence[nn.GRU]) -> "GRUs":
        """Return the weights of these, as arrays that share memory with the parameters."""
        parts = (tuple(weight.detach().numpy() for weight in kind) for kind in GRUs.parameters_of(grus))
        return GRUs(*parts)

    @staticmethod
    def parameters_of(grus: Sequence[nn.GRU]) -> list[tuple[Tensor, ...]]:
        """Return the same as parameters."""
        return [tuple(getattr(gru, f"{kind}_l0") for gru in grus) for kind in GRUs._fields]


class RecurrenceBuffers:
    """What T timesteps of B agents compute in GRUs of `sizes` hidden units, and the backward pass reads.

    Attributes:
        gates: [T, 4H, B], per GRU r, z, n and u_n.
        after: [T, H, B], the states; `states` are the same per timestep, tensors [B, H].
        before: [H, B], to work in.
    """

    def __init__(self, steps: int, batch: int, sizes: Sequence[int]):
        hidden = sum(sizes)
        self.gates = aligned_zeros(steps, 4 * hidden, batch)
        self.after = aligned_zeros(steps, hidden, batch)
        self.before = aligned_zeros(hidden, batch)
        self.states = list(batch_first(self.after))
        self._arrays = dict(zip(map(id, self.states), self.after, strict=True))

    def array_of(self, state: Tensor) -> np.ndarray:
        """Return a state [B, H] as an array [H, B]: at once where it is one of these buffers."""
        array = self._arrays.get(id(state))
        return batch_last(state) if array is None else array

    def step(self, t: int, inputs: np.ndarray, state: np.ndarray, not_done: np.ndarray, grus: GRUs) -> np.ndarray:
        """Run timestep t: inputs [input_size, B], state [H, B], not_done [B] -> state [H, B], which is kept."""
        gru_forward(*grus, inputs, state, not_done, self.gates[t], self.after[t], self.before)
        return self.after[t]


class Recurrence(torch.autograd.Function):
    """inputs [T, B, input_size], state [B, H], not_done [T, B], the weights of GRUs as parameters -> [T, B, H], the
    states after each timestep, which are in the buffers already."""

    @staticmethod
    def forward(ctx, inputs, state, not_done, grus, buffers, *parameters):
        ctx.arrays = batch_last(inputs), batch_last(state), not_done.numpy()
        ctx.grus, ctx.buffers = grus, buffers
        return batch_first(buffers.after)

    @staticmethod
    def backward(ctx, grad_after):
        (inputs, state, not_done), grus, buffers = ctx.arrays, ctx.grus, ctx.buffers
        grad_inputs, grad_state = aligned_zeros(*inputs.shape), aligned_zeros(*state.shape)
        grad_weights = GRUs._make(tuple(aligned_zeros(*weight.shape) for weight in kind) for kind in grus)
        d_gates, d_biases = aligned_zeros(*buffers.gates[0].shape), aligned_zeros(*buffers.gates[0].shape)
        gru_backward(
            grus.weight_ih, grus.weight_hh, inputs, state, not_done, buffers.gates, buffers.after,
            batch_last(grad_after), grad_inputs, grad_state, *grad_weights, buffers.before, d_gates, d_biases,
        )  # fmt: skip
        flat = (torch.from_numpy(grad) for kind in grad_weights for grad in kind)
        return batch_first(grad_inputs), batch_first(grad_state), None, None, None, *flat


def recur(
    inputs: Tensor, state: Tensor, not_done: Tensor, grus: Sequence[nn.GRU], weights: GRUs, buffers: RecurrenceBuffers
) -> Tensor:
    """Return the states that the buffers hold, [T, B, H], as part of the graph."""
    parameters = [weight for kind in GRUs.parameters_of(grus) for weight in kind]
    return Recurrence.apply(inputs, state, not_done, weights, buffers, *parameters)
