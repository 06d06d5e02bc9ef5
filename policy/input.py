"""From what an agent sees and is told to the vector a policy's recurrent layers read.

Observations travel as one compact vector (OBSERVATION_SIZE = 152 numbers: the 7x7x3 image as minigrid encodes it, the
direction one-hot, the carrying flag); `ObservationEncoder` turns it into features, `InputProjection` lets the projected
mission meet them.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from torch import Tensor, nn

from policy.gru import batch_first, batch_last, room
from policy.kernels import read_backward, read_forward

VIEW_CELLS = 7 * 7
IMAGE_SIZE = VIEW_CELLS * 3
OBSERVATION_SIZE = IMAGE_SIZE + 4 + 1
CELL_CHANNELS = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))  # values of a cell's type, color, state
CELL_VALUES = sum(CELL_CHANNELS)
LOOKS = math.prod(CELL_CHANNELS)
ONE_HOT = np.eye(4, dtype=np.uint8)  # of directions
OBS_ENCODINGS = ("raw", "onehot")
LANG_FUSIONS = ("concat", "film", "attention")


def observation_vector(observations: dict[str, np.ndarray]) -> np.ndarray:
    """Return uint8 [N, 152] for a batch of the environment's observations: image, one-hot direction, carrying."""
    batch = len(observations["direction"])
    vector = np.empty((batch, OBSERVATION_SIZE), np.uint8)
    vector[:, :IMAGE_SIZE] = observations["image"].reshape(batch, IMAGE_SIZE)
    vector[:, IMAGE_SIZE:-1] = ONE_HOT[observations["direction"]]
    vector[:, -1] = observations["carrying"]
    return vector


class ObservationEncoder(nn.Module):
    """Observation vectors [..., 152] -> features [..., size].

    `raw`: the numbers themselves, size 152. `onehot`: each cell's type, color and state one-hot instead of the integers
    that minigrid gave them, size 49 * 20 + 5 = 985.
    """

    def __init__(self, obs_encoding: str):
        super().__init__()
        self.onehot = obs_encoding == "onehot"
        self.size = VIEW_CELLS * CELL_VALUES + 5 if self.onehot else OBSERVATION_SIZE
        channel_starts = torch.tensor([0, CELL_CHANNELS[0], CELL_CHANNELS[0] + CELL_CHANNELS[1]])
        cell_starts = torch.arange(VIEW_CELLS) * CELL_VALUES
        self.register_buffer("starts", (cell_starts[:, None] + channel_starts).flatten(), persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        if not self.onehot:
            return observation.float()
        cells = torch.zeros(*observation.shape[:-1], self.size, device=observation.device)
        cells.scatter_(-1, observation[..., :IMAGE_SIZE].long() + self.starts, 1.0)
        cells[..., -5:] = observation[..., IMAGE_SIZE:]
        return cells


class CellAttention(nn.Module):
    """How well each visible cell answers the mission: one query-key product per cell and head.

    A cell has only 11 * 6 * 3 = 198 possible looks, so what a mission makes of each is a small table, computed once per
    mission. Queries and keys are normalised, so that scores are about as large as one-hot features from the first
    update on; products of two small things would take long to grow.
    """

    def __init__(self, lang_dim: int, heads: int = 4, key_size: int = 32):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(lang_dim, heads * key_size)
        self.key = nn.Sequential(nn.Linear(CELL_VALUES, key_size), nn.ReLU(), nn.Linear(key_size, key_size))
        looks = torch.cartesian_prod(*(torch.arange(size) for size in CELL_CHANNELS))
        onehot = [nn.functional.one_hot(channel, size) for channel, size in zip(looks.T, CELL_CHANNELS, strict=True)]
        self.register_buffer("looks", torch.cat(onehot, dim=1).float(), persistent=False)
        self.size = heads * VIEW_CELLS

    def keys(self) -> Tensor:
        """Return the key of every possible look, [198, key_size]."""
        keys = self.key(self.looks)
        return nn.functional.layer_norm(keys, keys.shape[1:])

    def answers(self, language: Tensor, keys: Tensor) -> Tensor:
        """language [M, lang_dim], keys of all looks -> how well each answers each head's query, [M, heads, 198]."""
        queries = self.query(language).unflatten(-1, (self.heads, -1))
        queries = nn.functional.layer_norm(queries, queries.shape[-1:]) / queries.shape[-1] ** 0.5
        return queries @ keys.t()

    def forward(self, observation: Tensor, answers: Tensor) -> Tensor:
        """observation [R, 152], the answers of each row's mission [R, heads, 198] -> scores [R, heads * 49]."""
        cells = observation[:, :IMAGE_SIZE].reshape(-1, VIEW_CELLS, 3).long()
        look = (cells[..., 0] * CELL_CHANNELS[1] + cells[..., 1]) * CELL_CHANNELS[2] + cells[..., 2]
        return answers.gather(2, look[:, None, :].expand(-1, self.heads, -1)).flatten(1)


class JoinedInput(NamedTuple):
    """`input_projection`'s weights in the form in which many timesteps read them: right factors of a product.

    Attributes:
        of_features: [features, output_size], contiguous.
        of_mission: [lang_dim, output_size].
        of_scores: [scores, output_size], none but with attention.
        keys: of `CellAttention`, where there is one.
    """

    of_features: Tensor
    of_mission: Tensor
    of_scores: Tensor
    keys: Tensor | None


def detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


class Told(NamedTuple):
    """What the input makes of missions alone: it stays the same as long as an episode lasts.

    Attributes:
        rows: int64 [R], which of the M missions each row is told.
        output: [M, output_size], the missions' part of the projection.
        answers: [M, heads, 198], of `CellAttention`; without it there are no heads.
        film: [M, 2 * features], scale and shift, where there are any.
    """

    rows: Tensor
    output: Tensor
    answers: Tensor
    film: Tensor | None

    def more(self, others: "Told") -> "Told":
        """Return what these and then the others are told."""
        parts = zip(self[1:], others[1:], strict=True)
        rows = torch.cat([self.rows, others.rows + len(self.output)])
        return Told(rows, *(None if part is None else torch.cat([part, other]) for part, other in parts))

    def take(self, rows) -> "Told":
        """Return what some of the rows are told."""
        return self._replace(rows=self.rows[rows])

    def put(self, rows, others: "Told") -> None:
        """Replace the missions of these rows, where row r is told mission r."""
        for part, other in zip(self[1:], others[1:], strict=True):
            if part is not None:
                part[rows] = other


class InputActivations:
    """What T timesteps of B agents make of what they see and are told.

    Attributes:
        output: [T, output_size, B].
        scores, by_row: [B, scores] and [B, output_size], to work in.
    """

    def __init__(self, steps: int, batch: int, scores: int, output_size: int):
        self.output = room(steps, output_size, batch)
        self.scores = room(batch, scores)
        self.by_row = room(batch, output_size)


class _Read(torch.autograd.Function):
    """observation uint8 [T, B, 152], starts [147], rows [T * B], and per mission or shared by all what they are told ->
    output [T, B, size], which is in `kept` already."""

    @staticmethod
    def forward(ctx, observation, starts, rows, of_missions, answers, of_scores, table, kept):
        arrays = [tensor.numpy() for tensor in (observation, starts, rows.view(observation.shape[:2]))]
        ctx.arrays, ctx.weights, ctx.kept = arrays, [w.numpy() for w in (of_missions, answers, of_scores, table)], kept
        return batch_first(kept.output)

    @staticmethod
    def backward(ctx, grad_output):
        (observation, starts, rows), (_, answers, of_scores, _), kept = ctx.arrays, ctx.weights, ctx.kept
        grads = [room(*weight.shape) for weight in ctx.weights]
        arrays = (observation, *CELL_CHANNELS[1:], starts, rows, answers, of_scores, batch_last(grad_output))
        read_backward(*arrays, *grads, kept.scores, kept.by_row)
        return None, None, None, *map(torch.from_numpy, grads), None


class InputProjection(nn.Linear):
    """`input_projection`: features [..., input_dim] with the projected mission [..., lang_dim] -> [..., output_size].

    lang_fusion:
        concat: a linear map of both, side by side.
        film: the mission also scales and shifts every feature first (Perez et al. 2018, arXiv 1709.07871).
        attention: per visible cell, how well it answers the mission joins them (`CellAttention`).
    """

    def __init__(self, obs_encoding: str, lang_dim: int, lang_fusion: str, output_size: int):
        encoder = ObservationEncoder(obs_encoding)
        attention = CellAttention(lang_dim) if lang_fusion == "attention" else None
        sizes = [encoder.size, lang_dim, attention.size if attention else 0]
        super().__init__(sum(sizes), output_size)
        self.sizes = sizes
        self.encoder = encoder
        self.attention = attention
        self.film = nn.Linear(lang_dim, 2 * encoder.size) if lang_fusion == "film" else None
        self.adds_rows = encoder.onehot and self.film is None  # then a product with a few rows is a sum of those

    def join(self) -> JoinedInput:
        """Return the weights in the form that `tell`, `forward` and `step` read, to share it between calls."""
        of_features, of_mission, of_scores = self.weight.t().contiguous().split(self.sizes)
        keys = None if self.attention is None else self.attention.keys()
        return JoinedInput(of_features, of_mission, of_scores, keys)

    def tell(self, language: Tensor, joined: JoinedInput) -> Told:
        """Projected missions [M, lang_dim] -> what M rows, each with one of them, are told."""
        output = torch.addmm(self.bias, language, joined.of_mission)
        none = output.new_zeros(len(output), 0, LOOKS)
        answers = none if self.attention is None else self.attention.answers(language, joined.keys)
        film = None if self.film is None else self.film(language)
        return Told(torch.arange(len(output), device=output.device), output, answers, film)

    def empty_activations(self, steps: int, batch: int) -> InputActivations:
        """Return room for what `step` computes."""
        return InputActivations(steps, batch, self.sizes[2], self.out_features)

    def forward(self, observation: Tensor, told: Told, joined: JoinedInput) -> Tensor:
        """By the definition: observation [R, 152] and what its rows are told, from `tell` -> [R, output_size]."""
        output = told.output[told.rows]
        if self.attention is not None:
            output = torch.addmm(output, self.attention(observation, told.answers[told.rows]), joined.of_scores)
        features = self.encoder(observation)
        if self.film is not None:
            scale, shift = told.film[told.rows].chunk(2, dim=-1)
            features = features * (1 + scale) + shift
        return torch.addmm(output, features, joined.of_features)

    def step(self, observation: Tensor, told: Told, joined: JoinedInput, kept: InputActivations, t: int) -> np.ndarray:
        """`unroll` for one timestep, on the CPU and without gradients -> [output_size, B]."""
        output = kept.output[t]
        if self.adds_rows:
            arrays = [tensor.numpy() for tensor in (*told[:3], joined.of_scores, joined.of_features)]
            starts = self.encoder.starts.numpy()
            read_forward(observation.numpy(), *CELL_CHANNELS[1:], starts, *arrays, kept.scores, kept.by_row, output)
        else:
            output[:] = self(observation, told, joined).numpy().T
        return output

    def unroll(self, observation: Tensor, told: Told, joined: JoinedInput, kept: InputActivations | None) -> Tensor:
        """observation [T, B, 152], told to T * B rows, `kept`: what `step` kept of them -> [T, B, output_size]."""
        if not (self.adds_rows and told.output.is_cpu):
            return self(observation.flatten(0, 1), told, joined).unflatten(0, observation.shape[:2])
        if kept is None:
            kept = self.empty_activations(*observation.shape[:2])
            now, fixed = (type(parts)(*map(detached, parts)) for parts in (told, joined))
            for t, rows in enumerate(told.rows.view(observation.shape[:2])):
                self.step(observation[t], now._replace(rows=rows), fixed, kept, t)
        weights = (told.output, told.answers, joined.of_scores, joined.of_features)
        return _Read.apply(observation, self.encoder.starts, told.rows, *weights, kept)
