"""The input of a policy: `policy.input.InputProjection`, with what depends on missions alone computed once per mission.

Two things make it fast. A product of weights with one-hot features is a sum of some of their rows. And since a cell can
look in only 198 ways, what a mission makes of cells is a table, which the attention then looks up. Features that are
not one-hot (`raw`), or that the mission scales (`film`), are multiplied as they are.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from policy.attention import CellAttention, LearnedMatching, ParsedMatching
from policy.compiled.buffers import aligned_zeros, batch_first, batch_last
from policy.compiled.due import DueBuffers, PackedDue
from policy.compiled.kernels import read_backward, read_forward, remember_locks
from policy.compiled.operations import layer_norm, linear, product, sharpen
from policy.input import InputProjection, ProjectedInput
from policy.observation import CELL_CHANNELS, LOOKS, VIEW_CELLS, look_up


class InputBuffers:
    """What T timesteps of B agents make of what they see and are told.

    Attributes:
        output: [T, output_size, B].
        locks: [T, B, 6], of which colors a locked door was seen; [T, B, 0] where nobody remembers.
        scores, by_row: [B, scores] and [B, output_size], to work in.
        due: those of `policy.compiled.due`, if the projection has such a part.
    """

    def __init__(self, steps: int, batch: int, projection: InputProjection):
        self.output = aligned_zeros(steps, projection.out_features, batch)
        self.locks = aligned_zeros(
            steps, batch, 0 if projection.fitting_keys is None else projection.fitting_keys.state_size
        )
        self.scores = aligned_zeros(batch, projection.sizes[2])
        self.by_row = aligned_zeros(batch, projection.out_features)
        self.due = None if projection.due is None else DueBuffers(steps, batch, projection, projection.due)


class _Read(torch.autograd.Function):
    """observation uint8 [T, B, 152], starts [147], key_of_look [198], mission [T, B], features and weights -> output
    [T, B, size], which is in the buffers already."""

    @staticmethod
    def forward(ctx, observation, starts, key_of_look, mission, of_missions, look_scores, of_scores, table, buffers):
        ctx.arrays = [tensor.numpy() for tensor in (observation, starts, key_of_look, mission)]
        ctx.weights, ctx.buffers = [w.numpy() for w in (of_missions, look_scores, of_scores, table)], buffers
        return batch_first(buffers.output)

    @staticmethod
    def backward(ctx, grad_output):
        (observation, starts, key_of_look, mission), (_, look_scores, of_scores, _) = ctx.arrays, ctx.weights
        grads = [aligned_zeros(*weight.shape) for weight in ctx.weights]
        grad_of_missions, grad_look_scores, grad_of_scores, grad_table = grads
        learns_look_scores = ctx.needs_input_grad[5]  # exact matching is nothing to learn
        read_backward(
            observation, *CELL_CHANNELS[1:], starts, key_of_look, mission, look_scores, ctx.buffers.locks, of_scores,
            batch_last(grad_output), grad_of_missions, grad_look_scores, grad_of_scores, grad_table,
            ctx.buffers.scores, ctx.buffers.by_row, learns_look_scores,
        )  # fmt: skip
        return None, None, None, None, *map(torch.from_numpy, grads), None


class PackedInput:
    """An input projection's weights in the form that its timesteps read, until they change.

    Mission features are (part of the output [M, size], scores of all looks [M, heads, 198], with `film` scale and shift
    [M, 2 * features], with `matching` what actions ask for [M, 4, size]); without attention there are no heads.
    """

    def __init__(self, projection: InputProjection, buffers: InputBuffers):
        self.projection, self.buffers = projection, buffers
        with torch.enable_grad():
            self.of_features, self.of_mission, self.of_scores = (
                weight.contiguous() for weight in projection.split_weight(product)
            )
            self.keys = self._keys()
        self.due = None if buffers.due is None else PackedDue.of(projection, buffers.due)
        self.adds_rows = projection.encoder.onehot and projection.film is None
        self.starts = projection.encoder.starts
        self.lock_of_look = self.key_of_look = torch.empty(0, dtype=torch.int64)
        if projection.fitting_keys is not None:
            self.lock_of_look, self.key_of_look = (
                projection.fitting_keys.lock_of_look,
                projection.fitting_keys.key_of_look,
            )
        weights = self.of_scores.detach().numpy(), self.of_features.detach().numpy()
        self.fixed = self.starts.numpy(), weights[0], weights[1], self.key_of_look.numpy()
        self.features: tuple[Tensor, ...] = ()  # those of the last step, and the same as arrays
        self.feature_arrays: tuple[np.ndarray, ...] = ()

    def _keys(self) -> Tensor | None:
        """Return the keys of all looks, where the form of attention has such: [198, key_size]."""
        attention = self.projection.attention
        if isinstance(attention, LearnedMatching):
            return layer_norm(attention.key.weight)
        if not isinstance(attention, CellAttention):
            return None
        first, _, second = cast(tuple[nn.Linear, nn.ReLU, nn.Linear], tuple(attention.key))
        hidden = linear(attention.looks, first.weight, first.bias).relu()
        return layer_norm(linear(hidden, second.weight, second.bias))

    def _look_scores(self, language: Tensor) -> Tensor:
        """[M, lang_dim] -> [M, heads, 198]."""
        attention = self.projection.attention
        if attention is None:
            return language.new_zeros(len(language), 0, LOOKS)
        if isinstance(attention, ParsedMatching):
            return attention(language)  # products of zeros and ones are exact
        assert self.keys is not None
        queries = linear(language, attention.query.weight, attention.query.bias).unflatten(-1, (attention.heads, -1))
        queries = layer_norm(queries) / queries.shape[-1] ** 0.5
        scores = product(queries.flatten(0, 1), self.keys.t()).unflatten(0, queries.shape[:2])
        if isinstance(attention, CellAttention):
            return scores
        return sharpen(scores, attention.gain, attention.threshold)

    def mission_features(self, language: Tensor) -> tuple[Tensor, ...]:
        projection = self.projection
        features = linear(language, self.of_mission.t(), projection.bias), self._look_scores(language)
        if projection.film is not None:
            return *features, linear(language, projection.film.weight, projection.film.bias)
        if self.due is None:
            return features
        return *features, self.due.actions(language)

    def step(
        self,
        t: int,
        observation: Tensor,
        features: tuple[Tensor, ...],
        mission: Tensor,
        state: list[Tensor],
        not_done: np.ndarray,
    ) -> tuple[np.ndarray, Tensor | None, list[Tensor]]:
        """Run timestep t, without gradients: observation [B, 152], mission [B], state [B, state_size] if there is one.

        Returns:
            as `policy.input.ProjectedInput`, but the hidden vector as an array [output_size, B].
        """
        output, locks = self.buffers.output[t], self.buffers.locks[t]
        if self.projection.fitting_keys is not None:
            remember_locks(
                observation.numpy(), *CELL_CHANNELS[1:], VIEW_CELLS, self.lock_of_look.numpy(), not_done,
                state[1].numpy(), locks,
            )  # fmt: skip
        if features is not self.features:
            self.features = features
            self.feature_arrays = tuple(feature.detach().numpy() for feature in features)
        if self.adds_rows:
            of_missions, look_scores, *_ = self.feature_arrays
            read_forward(
                observation.numpy(), *CELL_CHANNELS[1:], *self.fixed, mission.numpy(), of_missions, look_scores, locks,
                self.buffers.scores, self.buffers.by_row, output,
            )  # fmt: skip
        else:
            output[:] = self._multiply(observation, features, mission, torch.from_numpy(locks)).detach().numpy().T
        if self.due is None:
            return output, None, []
        _, *of_missions = self.feature_arrays
        output, due, after = self.due.step(
            t, output, observation.numpy(), mission.numpy(), of_missions, state[0], not_done
        )
        return output, due, [after, *self._seen(locks)]

    def _seen(self, locks: np.ndarray) -> list[Tensor]:
        """Return the state that remembers locks [B, 6], where there is one."""
        return [] if self.projection.fitting_keys is None else [torch.from_numpy(locks)]

    def _multiply(self, observation: Tensor, features: tuple[Tensor, ...], mission: Tensor, locks: Tensor) -> Tensor:
        """observation [R, 152], mission [R], locks [R, 6] -> [R, output_size], with gradients."""
        projection = self.projection
        seen = projection.encoder(observation)
        output = features[0][mission]
        if projection.film is not None:
            scale, shift = features[2][mission].chunk(2, dim=-1)
            seen = seen * (1 + scale) + shift
        if projection.attention is not None:
            scores = look_up(observation, features[1][mission])
            if projection.fitting_keys is not None:
                scores = torch.cat([scores, projection.fitting_keys(observation, locks)[0]], 1)
            output = output + product(scores, self.of_scores)
        return output + product(seen, self.of_features)

    def unroll(
        self,
        observation: Tensor,
        features: tuple[Tensor, ...],
        mission: Tensor,
        state: list[Tensor],
        not_done: Tensor,
    ) -> ProjectedInput:
        """observation [T, B, 152], mission [T, B], not_done [T, B], for which all steps have been run, as part of the
        graph: `hidden` and `due` with a first dimension T more."""
        if self.adds_rows:
            weights = (*features[:2], self.of_scores, self.of_features)
            output = _Read.apply(observation, self.starts, self.key_of_look, mission, *weights, self.buffers)
        else:
            locks = torch.from_numpy(self.buffers.locks)
            rows = self._multiply(observation.flatten(0, 1), features, mission.flatten(), locks.flatten(0, 1))
            output = rows.unflatten(0, observation.shape[:2])
        if self.due is None:
            return ProjectedInput(output, None, [])
        output, due, after = self.due.unroll(output, observation, mission, features[1:], state[0], not_done)
        return ProjectedInput(output, due, [after, *self._seen(self.buffers.locks[-1])])
