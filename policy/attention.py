"""Where a mission meets the cells in view: how well each way to look answers it.

A cell can look in only 11 * 6 * 3 = 198 ways, so what a mission makes of cells is a table, which each visible cell then
looks up (`policy.observation.look_up`). The forms here make that table, [missions, heads, 198].
"""

import torch
from minigrid.core.constants import OBJECT_TO_IDX
from torch import Tensor, nn

from policy.observation import CELL_CHANNELS, CELL_VALUES, LOOKS, one_hot_looks
from policy.parser import (
    ACTION_DESCRIPTIONS,
    ACTION_SIZE,
    COLOR_START,
    COLORS,
    CONNECTIVE_START,
    DESCRIPTION_SIZE,
    DESCRIPTIONS_START,
    MISSION_ACTIONS,
    TYPE_START,
    TYPES,
)

DESCRIPTIONS = MISSION_ACTIONS * ACTION_DESCRIPTIONS
FIRST_TYPE = OBJECT_TO_IDX[TYPES[1]]  # TYPES[1:] follow each other in minigrid's numbers too


class CellAttention(nn.Module):
    """Per head, the product of the mission's query and the key of each way to look (`lang_fusion: attention`).

    Queries and keys are normalised, so that scores are about as large as one-hot features from the first update on;
    products of two small things would take long to grow.
    """

    looks: Tensor

    def __init__(self, lang_dim: int, heads: int = 4, key_size: int = 32):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(lang_dim, heads * key_size)
        self.key = nn.Sequential(nn.Linear(CELL_VALUES, key_size), nn.ReLU(), nn.Linear(key_size, key_size))
        self.register_buffer("looks", one_hot_looks(), persistent=False)

    def forward(self, language: Tensor) -> Tensor:
        """language [M, lang_dim] -> [M, heads, 198]."""
        keys = self.key(self.looks)
        keys = nn.functional.layer_norm(keys, keys.shape[-1:])
        queries = self.query(language).unflatten(-1, (self.heads, -1))
        queries = nn.functional.layer_norm(queries, queries.shape[-1:]) / queries.shape[-1] ** 0.5
        return queries @ keys.t()


class Matching(nn.Module):
    """How well each way to look matches each of the objects that a mission describes (`lang_fusion: matching`).

    Attributes:
        heads: descriptions, two for each action.
        action_size: numbers that say what an action asks for.
    """

    heads, action_size = DESCRIPTIONS, ACTION_SIZE

    def actions(self, language: Tensor) -> Tensor:
        """language [M, lang_dim] -> what each action asks for, [M, 4, action_size]."""
        raise NotImplementedError

    def forward(self, language: Tensor) -> Tensor:
        """language [M, lang_dim] -> scores between 0 and 1, [M, 8, 198]."""
        raise NotImplementedError


class ParsedMatching(Matching):
    """The descriptions of a parsed mission, matched exactly: 1 where a cell is of the type and of the color described,
    else 0 (`lang_encoder: parser`). Nothing in it is learned.
    """

    of_type: Tensor
    of_color: Tensor

    def __init__(self):
        super().__init__()
        looks = one_hot_looks()
        of_type = looks[:, FIRST_TYPE : FIRST_TYPE + len(TYPES) - 1]
        of_color = looks[:, CELL_CHANNELS[0] : CELL_CHANNELS[0] + CELL_CHANNELS[1]]
        any_type, any_color = of_type.sum(1, keepdim=True), torch.ones(LOOKS, 1)  # "object", and no color named
        self.register_buffer("of_type", torch.cat([any_type, of_type], 1), persistent=False)
        self.register_buffer("of_color", torch.cat([of_color, any_color], 1), persistent=False)

    def actions(self, language: Tensor) -> Tensor:
        """See `Matching.actions`."""
        return language[:, :CONNECTIVE_START].unflatten(-1, (MISSION_ACTIONS, ACTION_SIZE))

    def forward(self, language: Tensor) -> Tensor:
        """See `Matching.forward`."""
        described = self.actions(language)[..., DESCRIPTIONS_START:].unflatten(-1, (-1, DESCRIPTION_SIZE)).flatten(1, 2)
        type_ = described[..., TYPE_START : TYPE_START + len(TYPES)]
        color = described[..., COLOR_START : COLOR_START + len(COLORS)]
        return (type_ @ self.of_type.t()) * (color @ self.of_color.t())


class LearnedMatching(Matching):
    """The same of a mission whose structure nobody tells (other encoders).

    Per description a query, and for each way to look, as a whole, a key of its own; a score lies between 0 and 1, and
    its gain and threshold are learned, so that it can become as sharp as an exact match.
    """

    action_size = 32

    def __init__(self, lang_dim: int, key_size: int = 32):
        super().__init__()
        self.query = nn.Linear(lang_dim, self.heads * key_size)
        self.key = nn.Embedding(LOOKS, key_size)
        self.gain = nn.Parameter(torch.full((self.heads, 1), 3.0))
        self.threshold = nn.Parameter(torch.full((self.heads, 1), 1.0))
        self.action = nn.Linear(lang_dim, MISSION_ACTIONS * self.action_size)

    def actions(self, language: Tensor) -> Tensor:
        """See `Matching.actions`."""
        return self.action(language).unflatten(-1, (MISSION_ACTIONS, -1))

    def forward(self, language: Tensor) -> Tensor:
        """See `Matching.forward`."""
        keys = nn.functional.layer_norm(self.key.weight, self.key.weight.shape[-1:])
        queries = self.query(language).unflatten(-1, (self.heads, -1))
        queries = nn.functional.layer_norm(queries, queries.shape[-1:]) / queries.shape[-1] ** 0.5
        return torch.sigmoid(self.gain * (queries @ keys.t() - self.threshold))
