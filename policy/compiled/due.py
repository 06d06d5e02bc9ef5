"""Which action is due, and what is said of it: `policy.input.DueAction`, compiled.

The GRU and its softmax are those of a mixture layer's router; what they weigh is what cells and mission say of each
action, where a layer weighs its experts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from policy.attention import LearnedMatching, Matching
from policy.compiled.buffers import aligned_zeros, batch_first, batch_last
from policy.compiled.kernels import due_backward, due_forward, route
from policy.compiled.mixing import Route
from policy.compiled.normalisation import NormalBuffers
from policy.compiled.operations import linear, product
from policy.compiled.recurrence import GRUs, RecurrenceBuffers, recur
from policy.input import DueAction, InputProjection
from policy.observation import CELL_CHANNELS
from policy.parser import MISSION_ACTIONS


class DueBuffers:
    """What T timesteps of B agents compute of the actions that are due.

    Attributes:
        recurrence: see `RecurrenceBuffers`.
        inputs: normalised.
        routing: [T, 4, B], how far each action is due; `due` are the same per timestep, tensors [B, 4].
        output: [T, size, B].
        scores, weighted, by_row: [B, 8 * 49], [B, 2 * 49] and [B, size], to work in.
    """

    def __init__(self, steps: int, batch: int, projection: InputProjection, due: DueAction):
        size = projection.out_features
        self.recurrence = RecurrenceBuffers(steps, batch, [due.state_size])
        self.inputs = NormalBuffers(steps, size, batch)
        self.routing = aligned_zeros(steps, MISSION_ACTIONS, batch)
        self.due = list(batch_first(self.routing))
        self.output = aligned_zeros(steps, size, batch)
        self.scores = aligned_zeros(batch, MISSION_ACTIONS * due.of_cells.in_features)
        self.weighted = aligned_zeros(batch, due.of_cells.in_features)
        self.by_row = aligned_zeros(batch, size)


class _Due(torch.autograd.Function):
    """inputs [T, B, size], due [T, B, 4], observation uint8 [T, B, 152], mission [T, B], features and weights -> output
    [T, B, size], which is in the buffers already."""

    @staticmethod
    def forward(ctx, inputs, due, observation, mission, look_scores, actions, of_cells, buffers):
        ctx.arrays = observation.numpy(), mission.numpy()
        ctx.weights, ctx.buffers = [weight.numpy() for weight in (look_scores, actions, of_cells)], buffers
        return batch_first(buffers.output)

    @staticmethod
    def backward(ctx, grad_output):
        (observation, mission), buffers = ctx.arrays, ctx.buffers
        look_scores, actions, of_cells = ctx.weights
        grads = [aligned_zeros(*weight.shape) for weight in ctx.weights]
        grad_look_scores, grad_actions, grad_of_cells = grads
        grad_due = aligned_zeros(*buffers.routing.shape)
        due_backward(
            observation, *CELL_CHANNELS[1:], mission, look_scores, actions, buffers.routing, of_cells,
            batch_last(grad_output), grad_look_scores, grad_actions, grad_due, grad_of_cells,
            buffers.scores, buffers.weighted, buffers.by_row, ctx.needs_input_grad[4],
        )  # fmt: skip
        return grad_output, batch_first(grad_due), None, None, *map(torch.from_numpy, grads), None


class PackedDue(NamedTuple):
    """The weights of a `DueAction` in the form that its timesteps read, until they change."""

    module: DueAction
    matching: Matching
    buffers: DueBuffers
    gru: GRUs
    fc: tuple[np.ndarray, np.ndarray]
    of_cells: Tensor

    @staticmethod
    def of(projection: InputProjection, buffers: DueBuffers) -> "PackedDue":
        module, matching = projection.due, projection.attention
        assert module is not None and isinstance(matching, Matching)  # where there are such buffers
        fc = module.fc.weight.detach().numpy(), module.fc.bias.detach().numpy()
        with torch.enable_grad():
            of_cells = module.cell_weights(product).contiguous()
        return PackedDue(module, matching, buffers, GRUs.of([module.gru]), fc, of_cells)

    def actions(self, language: Tensor) -> Tensor:
        """language [M, lang_dim] -> what is said of each action, as far as the mission says it, [M, 4, size]."""
        if isinstance(self.matching, LearnedMatching):
            actions = linear(language, self.matching.action.weight, self.matching.action.bias)
            actions = actions.unflatten(-1, (MISSION_ACTIONS, -1))
        else:
            actions = self.matching.actions(language)
        return linear(actions, self.module.of_action.weight, actions.new_zeros(self.module.of_action.out_features))

    def step(
        self,
        t: int,
        inputs: np.ndarray,
        observation: np.ndarray,
        mission: np.ndarray,
        features: Sequence[np.ndarray],
        state: Tensor,
        not_done: np.ndarray,
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """Run timestep t, without gradients.

        Args:
            inputs: [size, B].
            observation, mission: [B, 152] and [B].
            features: look scores and actions of all missions.
            state, not_done: [B, 32] and [B].

        Returns:
            the output, an array [size, B]; how far each action is due, a tensor [B, 4]; the state [B, 32].
        """
        buffers = self.buffers
        (look_scores, actions), normal = features, buffers.inputs.step(t, inputs)
        hidden = buffers.recurrence.step(t, normal, buffers.recurrence.array_of(state), not_done, self.gru)
        route(hidden, *self.fc, buffers.routing[t])
        due_forward(
            observation, *CELL_CHANNELS[1:], mission, look_scores, actions, buffers.routing[t],
            self.of_cells.detach().numpy(), normal, buffers.scores, buffers.weighted, buffers.by_row, buffers.output[t],
        )  # fmt: skip
        return buffers.output[t], buffers.due[t], buffers.recurrence.states[t]

    def unroll(
        self,
        inputs: Tensor,
        observation: Tensor,
        mission: Tensor,
        features: Sequence[Tensor],
        state: Tensor,
        not_done: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All timesteps, which have been run, as part of the graph: [T, B, ...] each, but the state [B, 32]."""
        normal = self.buffers.inputs.unroll(inputs)
        hidden = recur(normal, state, not_done, [self.module.gru], self.gru, self.buffers.recurrence)
        _, due = Route.apply(hidden, self.module.fc.weight, self.module.fc.bias, self.buffers)
        output = _Due.apply(normal, due, observation, mission, *features, self.of_cells, self.buffers)
        return output, due, hidden[-1]
