"""From what an agent sees and is told to the vector a policy's recurrent layers read.

Observations travel as one compact vector (OBSERVATION_SIZE = 152 numbers: the 7x7x3 image as minigrid encodes it, the
direction one-hot, the carrying flag); `ObservationEncoder` turns it into features, `InputProjection` lets the projected
mission meet them.
"""

from typing import NamedTuple

import numpy as np
import torch
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from torch import Tensor, nn

from policy_kernels import add_onehot, add_onehot_backward, attend, attend_backward

VIEW_CELLS = 7 * 7
IMAGE_SIZE = VIEW_CELLS * 3
OBSERVATION_SIZE = IMAGE_SIZE + 4 + 1
CELL_CHANNELS = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))  # values of a cell's type, color, state
CELL_VALUES = sum(CELL_CHANNELS)
OBS_ENCODINGS = ("raw", "onehot")
LANG_FUSIONS = ("concat", "film", "attention")


def observation_vector(observations: dict[str, np.ndarray]) -> np.ndarray:
    """Return uint8 [N, 152] for a batch of the environment's observations: image, one-hot direction, carrying."""
    batch = len(observations["direction"])
    vector = np.zeros((batch, OBSERVATION_SIZE), np.uint8)
    vector[:, :IMAGE_SIZE] = observations["image"].reshape(batch, IMAGE_SIZE)
    vector[np.arange(batch), IMAGE_SIZE + observations["direction"]] = 1
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

    A cell has only 11 * 6 * 3 = 198 possible looks, so all keys together are a small table. Queries and keys are
    normalised, so that scores are about as large as one-hot features from the first update on; products of two small
    things would take long to grow.
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

    def queries(self, language: Tensor) -> Tensor:
        """language [M, lang_dim] -> what each head looks for, [M, heads, key_size]."""
        queries = self.query(language).unflatten(-1, (self.heads, -1))
        return nn.functional.layer_norm(queries, queries.shape[-1:]) / queries.shape[-1] ** 0.5

    def forward(self, observation: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """observation [R, 152], queries [R, heads, key_size], keys from `keys` -> scores [R, heads * 49]."""
        attended = _Attend.apply if keys.is_cpu else attend_by_table
        return attended(observation.byte(), queries, keys).flatten(1)


class _Attend(torch.autograd.Function):
    """observation uint8 [R, 152], queries [R, heads, size], keys [198, size] -> products [R, heads, 49]."""

    @staticmethod
    def forward(ctx, observation, queries, keys):
        ctx.save_for_backward(observation, queries, keys)
        scores = queries.new_empty(*queries.shape[:2], VIEW_CELLS)
        attend(observation.numpy(), *CELL_CHANNELS[1:], queries.numpy(), keys.numpy(), scores.numpy())
        return scores

    @staticmethod
    def backward(ctx, grad_scores):
        observation, queries, keys = ctx.saved_tensors
        grads = torch.zeros_like(queries), torch.zeros_like(keys)
        arrays = (tensor.numpy() for tensor in (queries, keys, grad_scores.contiguous(), *grads))
        attend_backward(observation.numpy(), *CELL_CHANNELS[1:], *arrays)
        return None, *grads


def attend_by_table(observation: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """What `_Attend` computes, for devices that compiled functions do not run on."""
    cells = observation[:, :IMAGE_SIZE].reshape(-1, VIEW_CELLS, 3).long()
    look = (cells[..., 0] * CELL_CHANNELS[1] + cells[..., 1]) * CELL_CHANNELS[2] + cells[..., 2]
    return (queries @ keys.t()).gather(2, look[:, None, :].expand(-1, queries.shape[1], -1))


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


class Told(NamedTuple):
    """What the input makes of missions alone: it stays the same as long as an episode lasts.

    Attributes:
        output: [M, output_size], the missions' part of the projection.
        queries: [M, heads, key_size], of `CellAttention`, where there is one.
        film: [M, 2 * features], scale and shift, where there are any.
    """

    output: Tensor
    queries: Tensor | None
    film: Tensor | None

    def take(self, rows) -> "Told":
        """Return the missions of these rows."""
        return Told(*(None if part is None else part[rows] for part in self))

    def put(self, rows, others: "Told") -> None:
        """Replace the missions of these rows."""
        for part, other in zip(self, others, strict=True):
            if part is not None:
                part[rows] = other


class _AddOnehot(torch.autograd.Function):
    """output [R, size], observation uint8 [R, 152], table [985, size] -> output + one-hot encoded observation @ table:
    a sum of 149 rows each, where the product would multiply 985."""

    @staticmethod
    def forward(ctx, output, observation, starts, table):
        ctx.save_for_backward(observation, starts, table)
        output = output.clone()
        add_onehot(observation.numpy(), starts.numpy(), table.numpy(), output.numpy())
        return output

    @staticmethod
    def backward(ctx, grad_output):
        observation, starts, table = ctx.saved_tensors
        grad_table = torch.zeros_like(table)
        grad_output = grad_output.contiguous()
        add_onehot_backward(observation.numpy(), starts.numpy(), grad_output.numpy(), grad_table.numpy())
        return grad_output, None, None, grad_table


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
        of_features, of_mission, of_scores = self.weight.t().split(self.sizes)
        keys = None if self.attention is None else self.attention.keys()
        return JoinedInput(of_features.contiguous(), of_mission, of_scores, keys)

    def tell(self, language: Tensor, joined: JoinedInput) -> Told:
        """Projected missions [M, lang_dim] -> what `forward` and `step` read of them."""
        output = torch.addmm(self.bias, language, joined.of_mission)
        queries = None if self.attention is None else self.attention.queries(language)
        return Told(output, queries, None if self.film is None else self.film(language))

    def forward(self, observation: Tensor, told: Told, joined: JoinedInput) -> Tensor:
        """observation [R, 152] with the mission of each row, from `tell` -> [R, output_size]."""
        output = told.output
        if self.attention is not None:
            output = torch.addmm(output, self.attention(observation, told.queries, joined.keys), joined.of_scores)
        if self.adds_rows and output.is_cpu:
            return _AddOnehot.apply(output, observation, self.encoder.starts, joined.of_features)
        features = self.encoder(observation)
        if self.film is not None:
            scale, shift = told.film.chunk(2, dim=-1)
            features = features * (1 + scale) + shift
        return torch.addmm(output, features, joined.of_features)

    def step(self, observation: Tensor, told: Told, joined: JoinedInput) -> np.ndarray:
        """`forward` on the CPU and without gradients."""
        if not self.adds_rows:
            return self(observation, told, joined).numpy()
        observation, output = observation.numpy(), told.output.numpy().copy()
        if self.attention is not None:
            scores = np.empty((len(observation), self.attention.heads, VIEW_CELLS), np.float32)
            attend(observation, *CELL_CHANNELS[1:], told.queries.numpy(), joined.keys.numpy(), scores)
            output += scores.reshape(len(observation), -1) @ joined.of_scores.numpy()
        add_onehot(observation, self.encoder.starts.numpy(), joined.of_features.numpy(), output)
        return output
