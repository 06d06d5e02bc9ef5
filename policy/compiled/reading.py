"""The input of a policy: `policy.input.InputProjection`, with what depends on missions alone computed once per mission.

Two things make it fast. A product of weights with one-hot features is a sum of some of their rows. And since a cell can
look in only 198 ways, what a mission makes of cells is a table, which the attention then looks up. Features that are
not one-hot (`raw`), or that the mission scales (`film`), are multiplied as they are.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from policy.compiled.buffers import aligned_zeros, batch_first, batch_last
from policy.compiled.kernels import read_backward, read_forward
from policy.compiled.operations import layer_norm, linear, product
from policy.input import CELL_CHANNELS, LOOKS, CellAttention, InputProjection


class InputBuffers:
    """What T timesteps of B agents make of what they see and are told.

    Attributes:
        output: [T, output_size, B].
        scores, by_row: [B, scores] and [B, output_size], to work in.
    """

    def __init__(self, steps: int, batch: int, projection: InputProjection):
        self.output = aligned_zeros(steps, projection.out_features, batch)
        self.scores = aligned_zeros(batch, projection.sizes[2])
        self.by_row = aligned_zeros(batch, projection.out_features)


class _Read(torch.autograd.Function):
    """observation uint8 [T, B, 152], starts [147], mission [T, B], features and weights -> output [T, B, size], which
    is in the buffers already."""

    @staticmethod
    def forward(ctx, observation, starts, mission, of_missions, look_scores, of_scores, table, buffers):
        ctx.arrays = [tensor.numpy() for tensor in (observation, starts, mission)]
        ctx.weights, ctx.buffers = [w.numpy() for w in (of_missions, look_scores, of_scores, table)], buffers
        return batch_first(buffers.output)

    @staticmethod
    def backward(ctx, grad_output):
        (observation, starts, mission), (_, look_scores, of_scores, _) = ctx.arrays, ctx.weights
        grads = [aligned_zeros(*weight.shape) for weight in ctx.weights]
        grad_of_missions, grad_look_scores, grad_of_scores, grad_table = grads
        read_backward(
            observation, *CELL_CHANNELS[1:], starts, mission, look_scores, of_scores, batch_last(grad_output),
            grad_of_missions, grad_look_scores, grad_of_scores, grad_table, ctx.buffers.scores, ctx.buffers.by_row,
        )  # fmt: skip
        return None, None, None, *map(torch.from_numpy, grads), None


class PackedInput:
    """An input projection's weights in the form that its timesteps read, until they change.

    Mission features are (part of the output [M, size], scores of all looks [M, heads, 198], and with `film` scale and
    shift [M, 2 * features]); without attention there are no heads.
    """

    def __init__(self, projection: InputProjection, buffers: InputBuffers):
        self.projection, self.buffers = projection, buffers
        with torch.enable_grad():
            self.of_features, self.of_mission, self.of_scores = (
                projection.weight.t().contiguous().split(projection.sizes)
            )
            self.keys = None if projection.attention is None else self._keys(projection.attention)
        self.adds_rows = projection.encoder.onehot and projection.film is None
        self.starts = projection.encoder.starts
        self.fixed = self.starts.numpy(), self.of_scores.detach().numpy(), self.of_features.detach().numpy()
        self.features: tuple[Tensor, ...] = ()  # those of the last step, and two of them as arrays
        self.feature_arrays = self.fixed[1], self.fixed[1]

    def _keys(self, attention: CellAttention) -> Tensor:
        first, _, second = cast(tuple[nn.Linear, nn.ReLU, nn.Linear], tuple(attention.key))
        hidden = linear(attention.looks, first.weight, first.bias).relu()
        return layer_norm(linear(hidden, second.weight, second.bias))

    def mission_features(self, language: Tensor) -> tuple[Tensor, ...]:
        projection, attention = self.projection, self.projection.attention
        output = linear(language, self.of_mission.t(), projection.bias)
        if attention is None or self.keys is None:
            look_scores = output.new_zeros(len(output), 0, LOOKS)
        else:
            queries = linear(language, attention.query.weight, attention.query.bias).unflatten(
                -1, (attention.heads, -1)
            )
            queries = layer_norm(queries) / queries.shape[-1] ** 0.5
            look_scores = product(queries.flatten(0, 1), self.keys.t()).unflatten(0, queries.shape[:2])
        if projection.film is None:
            return output, look_scores
        return output, look_scores, linear(language, projection.film.weight, projection.film.bias)

    def step(self, t: int, observation: Tensor, features: tuple[Tensor, ...], mission: Tensor) -> np.ndarray:
        """Run timestep t, without gradients: observation [B, 152], mission [B] -> [output_size, B]."""
        output = self.buffers.output[t]
        if self.adds_rows:
            if features is not self.features:
                self.features = features
                self.feature_arrays = features[0].detach().numpy(), features[1].detach().numpy()
            read_forward(
                observation.numpy(), *CELL_CHANNELS[1:], *self.fixed, mission.numpy(), *self.feature_arrays,
                self.buffers.scores, self.buffers.by_row, output,
            )  # fmt: skip
        else:
            output[:] = self._multiply(observation, features, mission).detach().numpy().T
        return output

    def _multiply(self, observation: Tensor, features: tuple[Tensor, ...], mission: Tensor) -> Tensor:
        """observation [R, 152], mission [R] -> [R, output_size], with gradients."""
        projection = self.projection
        seen = projection.encoder(observation)
        output = features[0][mission]
        if projection.film is not None:
            scale, shift = features[2][mission].chunk(2, dim=-1)
            seen = seen * (1 + scale) + shift
        if projection.attention is not None:
            scores = projection.attention.look_up(observation, features[1][mission])
            output = output + product(scores, self.of_scores)
        return output + product(seen, self.of_features)

    def unroll(self, observation: Tensor, features: tuple[Tensor, ...], mission: Tensor) -> Tensor:
        """observation [T, B, 152], mission [T, B], for which all steps have been run -> [T, B, output_size]."""
        if self.adds_rows:
            weights = (*features, self.of_scores, self.of_features)
            return _Read.apply(observation, self.starts, mission, *weights, self.buffers)
        rows = self._multiply(observation.flatten(0, 1), features, mission.flatten())
        return rows.unflatten(0, observation.shape[:2])
