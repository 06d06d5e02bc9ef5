"""What an agent sees, as numbers.

Observations travel as one compact vector (OBSERVATION_SIZE = 152 numbers: the 7x7x3 image as minigrid encodes it, the
direction one-hot, the carrying flag); `ObservationEncoder` turns it into features.
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
COLORS = CELL_CHANNELS[1]
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


def one_hot_looks() -> Tensor:
    """Return every way in which a cell can look, its type, color and state one-hot: [198, 20]."""
    looks = torch.cartesian_prod(*(torch.arange(size) for size in CELL_CHANNELS))
    onehot = [nn.functional.one_hot(channel, size) for channel, size in zip(looks.T, CELL_CHANNELS, strict=True)]
    return torch.cat(onehot, dim=1).float()


def colors_of_looks(type_: str, state: str | None = None) -> Tensor:
    """Return the color of every way to look that is an object of this type (and state), -1 for others: int64 [198]."""
    looks = torch.cartesian_prod(*(torch.arange(size) for size in CELL_CHANNELS))
    such = looks[:, 0] == OBJECT_TO_IDX[type_]
    if state is not None:
        such &= looks[:, 2] == STATE_TO_IDX[state]
    return torch.where(such, looks[:, 1], -1)


def looks_of_cells(observation: Tensor) -> Tensor:
    """observation [B, 152] -> the way in which each visible cell looks, int64 [B, 49]."""
    cells = observation[:, :IMAGE_SIZE].unflatten(-1, (VIEW_CELLS, 3)).long()
    return (cells[..., 0] * CELL_CHANNELS[1] + cells[..., 1]) * CELL_CHANNELS[2] + cells[..., 2]


def look_up(observation: Tensor, look_scores: Tensor) -> Tensor:
    """observation [B, 152], scores of all looks [B, heads, 198] -> the scores of the visible cells [B, heads * 49]."""
    look = looks_of_cells(observation)
    return look_scores.gather(2, look[:, None, :].expand(-1, look_scores.shape[1], -1)).flatten(1)
