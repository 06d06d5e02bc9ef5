"""From what an agent sees and is told to the vector that a policy's recurrent layers read."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fast_babyai.rules import VIEW
from policy.attention import CellAttention, LearnedMatching, Matching, ParsedMatching
from policy.observation import COLORS, VIEW_CELLS, ObservationEncoder, colors_of_looks, look_up, looks_of_cells
from policy.parser import ACTION_DESCRIPTIONS, MISSION_ACTIONS


class SharedReadout(nn.Module):
    """What cells' scores say, as far as cells share it: by column, by row, and for all cells alike. Weights of a cell's
    own learn slowly, since they are used only when something is in that cell.

    Args:
        heads: scores of each cell.
        size: numbers that they become.

    Attributes:
        weight: [7 + 7 + 1, heads * size].
        places: [49, 7 + 7 + 1], in which column and row each cell is; the last is 1 for all.
    """

    places: Tensor

    def __init__(self, heads: int, size: int):
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.zeros(2 * VIEW + 1, heads * size))
        column, row = torch.cartesian_prod(torch.arange(VIEW), torch.arange(VIEW)).T
        onehot = [nn.functional.one_hot(place, VIEW).float() for place in (column, row)]
        self.register_buffer("places", torch.cat([*onehot, torch.ones(VIEW_CELLS, 1)], 1), persistent=False)

    def forward(self, product: Callable[[Tensor, Tensor], Tensor] = torch.mm) -> Tensor:
        """Return the weights, [heads * 49, size]."""
        return product(self.places, self.weight).unflatten(1, (self.heads, -1)).transpose(0, 1).flatten(0, 1)


class DueAction(nn.Module):
    """Which of a mission's actions is due: GRU(size, 32) -> Linear -> softmax over the actions, and what cells and
    mission say of that action, through weights that all actions share.

    Attributes:
        state_size: how many numbers of state an agent has.
    """

    state_size = 32

    def __init__(self, action_size: int, size: int):
        super().__init__()
        self.gru = nn.GRU(size, self.state_size)
        self.fc = nn.Linear(self.state_size, MISSION_ACTIONS)
        self.of_cells = nn.Linear(ACTION_DESCRIPTIONS * VIEW_CELLS, size, bias=False)
        self.of_cells_shared = SharedReadout(ACTION_DESCRIPTIONS, size)
        self.of_action = nn.Linear(action_size, size, bias=False)

    def cell_weights(self, product: Callable[[Tensor, Tensor], Tensor] = torch.mm) -> Tensor:
        """Return the weights of an action's scores, [2 * 49, size]."""
        return self.of_cells.weight.t() + self.of_cells_shared(product)

    def forward(self, inputs: Tensor, scores: Tensor, actions: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run one timestep.

        Args:
            inputs: [B, size].
            scores: how well cells match each description, [B, 8 * 49].
            actions: what each action asks for, [B, 4, action_size].
            state: [B, state_size].

        Returns:
            the inputs, normalised, and what is said of the action that is due [B, size]; how far each action is due
            [B, 4]; state.
        """
        inputs = nn.functional.layer_norm(inputs, inputs.shape[-1:])
        _, hidden = self.gru(inputs[None], state[None])
        due = self.fc(hidden[0]).softmax(-1)
        due_scores = (due[..., None] * scores.unflatten(-1, (MISSION_ACTIONS, -1))).sum(1)
        due_action = (due[..., None] * self.of_action(actions)).sum(1)
        return inputs + due_scores @ self.cell_weights() + due_action, due, hidden[0]


class FittingKeys(nn.Module):
    """Marks the visible keys that fit a locked door seen in this episode. Which key is wanted is a matter of two things
    that may be rooms apart, and the mission names one of them at most. Nothing in it is learned.

    Attributes:
        state_size: how many numbers of state an agent has: of which colors it has seen a locked door, 0 or 1.
        lock_of_look, key_of_look: the color of every way to look that is a locked door, or a key, and -1 for others.
    """

    state_size = COLORS
    lock_of_look: Tensor
    key_of_look: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("lock_of_look", colors_of_looks("door", "locked"), persistent=False)
        self.register_buffer("key_of_look", colors_of_looks("key"), persistent=False)

    def forward(self, observation: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """observation [B, 152], state [B, 6] -> 1 where a cell holds such a key, else 0, [B, 49]; state."""
        look = looks_of_cells(observation)
        lock, key = self.lock_of_look[look], self.key_of_look[look]
        seen = nn.functional.one_hot(lock + 1, COLORS + 1).amax(1)[:, 1:]
        state = torch.maximum(state, seen.to(state.dtype))
        return state.gather(1, key.clamp(min=0)) * (key >= 0), state


class ProjectedInput(NamedTuple):
    """What an input projection makes of one timestep of B agents.

    Attributes:
        hidden: [B, output_size].
        due: how far each of the mission's actions is due, [B, 4]; None but with `matching`.
        state: a tensor [B, state_size] for each of the projection's state sizes.
    """

    hidden: Tensor
    due: Tensor | None
    state: list[Tensor]


class InputProjection(nn.Linear):
    """`input_projection`: an observation and its projected mission -> [B, output_size].

    A linear map of the observation's features, the mission and, by `lang_fusion`:
        concat: nothing more.
        film: the mission scales and shifts every feature first (Perez et al. 2018, arXiv 1709.07871).
        attention: how well each visible cell answers the mission joins them (`CellAttention`).
        matching: how well it matches each of the objects that the mission describes (`ParsedMatching`,
            `LearnedMatching`), and what that says of the action that is due (`DueAction`).

    Args:
        parsed: whether missions come as `policy.parser` writes them; `matching` makes use of it.
        match_keys: whether keys that fit a locked door are marked, too (`FittingKeys`; with `matching` only).

    Attributes:
        state_sizes: how many numbers of state an agent has in each part that has any: [], [32] or [32, 6].
    """

    def __init__(
        self,
        obs_encoding: str,
        lang_dim: int,
        lang_fusion: str,
        output_size: int,
        parsed: bool = False,
        match_keys: bool = False,
    ):
        encoder = ObservationEncoder(obs_encoding)
        attention: CellAttention | Matching | None = None
        if lang_fusion == "attention":
            attention = CellAttention(lang_dim)
        elif lang_fusion == "matching":
            attention = ParsedMatching() if parsed else LearnedMatching(lang_dim)
        keys = FittingKeys() if match_keys and lang_fusion == "matching" else None
        heads = (attention.heads if attention else 0) + (keys is not None)
        sizes = [encoder.size, lang_dim, heads * VIEW_CELLS]
        super().__init__(sum(sizes), output_size)
        self.sizes = sizes
        self.encoder = encoder
        self.attention = attention
        self.fitting_keys = keys
        self.film = nn.Linear(lang_dim, 2 * encoder.size) if lang_fusion == "film" else None
        self.shared, self.due = None, None
        if isinstance(attention, Matching):
            self.shared = SharedReadout(heads, output_size)
            self.due = DueAction(attention.action_size, output_size)
        self.state_sizes = [part.state_size for part in (self.due, self.fitting_keys) if part is not None]

    def split_weight(self, product: Callable[[Tensor, Tensor], Tensor] = torch.mm) -> list[Tensor]:
        """Return the weights of features, mission and scores, [their number, output_size] each."""
        of_features, of_mission, of_scores = self.weight.t().split(self.sizes)
        return [of_features, of_mission, of_scores if self.shared is None else of_scores + self.shared(product)]

    def forward(self, observation: Tensor, language: Tensor, state: list[Tensor]) -> ProjectedInput:
        """observation [B, 152], language [B, lang_dim], state [B, state_size] of each part that has one."""
        features = self.encoder(observation)
        if self.film is not None:
            scale, shift = self.film(language).chunk(2, dim=-1)
            features = features * (1 + scale) + shift
        of_features, of_mission, of_scores = self.split_weight()
        hidden = features @ of_features + language @ of_mission + self.bias
        if self.attention is None:
            return ProjectedInput(hidden, None, [])
        scores, seen = look_up(observation, self.attention(language)), []
        marks = scores
        if self.fitting_keys is not None:
            fitting, locks = self.fitting_keys(observation, state[1])
            marks, seen = torch.cat([scores, fitting], 1), [locks]
        hidden = hidden + marks @ of_scores
        if self.due is None or not isinstance(self.attention, Matching):
            return ProjectedInput(hidden, None, [])
        hidden, due, after = self.due(hidden, scores, self.attention.actions(language), state[0])
        return ProjectedInput(hidden, due, [after, *seen])
