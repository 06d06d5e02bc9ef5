"""From what an agent sees and is told to the vector that a policy's recurrent layers read.

Observations travel as one compact vector (OBSERVATION_SIZE = 152 numbers: the 7x7x3 image as minigrid encodes it, the
direction one-hot, the carrying flag); `ObservationEncoder` turns it into features, `InputProjection` lets the projected
mission meet them.
"""

import math

import numpy as np
import torch
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from torch import Tensor, nn

from fast_babyai.rules import NUM_DIRECTIONS, VIEW

VIEW_CELLS = VIEW * VIEW
IMAGE_SIZE = VIEW_CELLS * 3
OBSERVATION_SIZE = IMAGE_SIZE + NUM_DIRECTIONS + 1
CELL_CHANNELS = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))  # values of a cell's type, color, state
CELL_VALUES = sum(CELL_CHANNELS)
LOOKS = math.prod(CELL_CHANNELS)  # how many ways a cell can look
ONE_HOT = np.eye(NUM_DIRECTIONS, dtype=np.uint8)  # of directions


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

    starts: Tensor

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
    """How well each visible cell answers the mission: per head, the product of the mission's query and the cell's key.

    A cell can look in only 11 * 6 * 3 = 198 ways, so there are as many keys. Queries and keys are normalised, so that
    scores are about as large as one-hot features from the first update on; products of two small things would take long
    to grow.
    """

    looks: Tensor

    def __init__(self, lang_dim: int, heads: int = 4, key_size: int = 32):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(lang_dim, heads * key_size)
        self.key = nn.Sequential(nn.Linear(CELL_VALUES, key_size), nn.ReLU(), nn.Linear(key_size, key_size))
        looks = torch.cartesian_prod(*(torch.arange(size) for size in CELL_CHANNELS))
        onehot = [nn.functional.one_hot(channel, size) for channel, size in zip(looks.T, CELL_CHANNELS, strict=True)]
        self.register_buffer("looks", torch.cat(onehot, dim=1).float(), persistent=False)
        self.size = heads * VIEW_CELLS

    def forward(self, observation: Tensor, language: Tensor) -> Tensor:
        """observation [B, 152], language [B, lang_dim] -> scores [B, heads * 49]."""
        keys = self.key(self.looks)
        keys = nn.functional.layer_norm(keys, keys.shape[-1:])
        queries = self.query(language).unflatten(-1, (self.heads, -1))
        queries = nn.functional.layer_norm(queries, queries.shape[-1:]) / queries.shape[-1] ** 0.5
        return self.look_up(observation, queries @ keys.t())

    def look_up(self, observation: Tensor, look_scores: Tensor) -> Tensor:
        """observation [B, 152], the scores of all looks [B, heads, 198] -> scores of the cells [B, heads * 49]."""
        cells = observation[:, :IMAGE_SIZE].unflatten(-1, (VIEW_CELLS, 3)).long()
        look = (cells[..., 0] * CELL_CHANNELS[1] + cells[..., 1]) * CELL_CHANNELS[2] + cells[..., 2]
        return look_scores.gather(2, look[:, None, :].expand(-1, self.heads, -1)).flatten(1)


class InputProjection(nn.Linear):
    """`input_projection`: an observation and its projected mission -> [B, output_size].

    A linear map of the observation's features, the mission and, by `lang_fusion`:
        concat: nothing more.
        film: the mission scales and shifts every feature first (Perez et al. 2018, arXiv 1709.07871).
        attention: how well each visible cell answers the mission joins them (`CellAttention`).
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

    def forward(self, observation: Tensor, language: Tensor) -> Tensor:
        """observation [B, 152], language [B, lang_dim] -> [B, output_size]."""
        features = self.encoder(observation)
        if self.film is not None:
            scale, shift = self.film(language).chunk(2, dim=-1)
            features = features * (1 + scale) + shift
        parts = [features, language]
        if self.attention is not None:
            parts.append(self.attention(observation, language))
        return super().forward(torch.cat(parts, dim=-1))
