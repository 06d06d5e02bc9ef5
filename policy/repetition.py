"""What keeps an agent from going round in circles: what it has done in a place before, it does less readily again."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fast_babyai.rules import NUM_ACTIONS, NUM_DIRECTIONS
from fast_babyai.state import MAX_SIZE


class Repetitions:
    """Counts what N agents have done in their running episodes, and where.

    An agent acts by logits - `penalty` * how often it has taken each action before in this place, up to 255 times. A
    place is a cell, the direction that the agent looks in, and whether it carries something. The policy is told none of
    this; where the agent stands it could know from its own steps. Language models are kept from repeating themselves in
    this way (`frequency_penalty` of their programming interfaces).

    So acts an agent that is evaluated, and one that learns from reward. A student of the bot repeats itself as it likes
    while it learns: what it hears where it is stuck does it good (docs/study.md).

    Args:
        num_envs: N.
        penalty: of one repetition, in nats; with 0 nothing is counted.

    Attributes:
        counts: uint8 [N, width, height, directions, 2, num_actions].
    """

    def __init__(self, num_envs: int, penalty: float):
        self.penalty = np.float32(penalty)
        shape = (num_envs, MAX_SIZE, MAX_SIZE, NUM_DIRECTIONS, 2, NUM_ACTIONS)
        self.counts = np.zeros(shape if penalty else (num_envs, 0), np.uint8)
        self._none = np.zeros((num_envs, NUM_ACTIONS), np.float32)

    def penalties(
        self, observations: Mapping[str, np.ndarray], agent_pos: np.ndarray, begins: np.ndarray
    ) -> np.ndarray:
        """Return what is to be subtracted from each agent's logits, float32 [N, num_actions].

        Args:
            observations: of N environments.
            agent_pos: where the agents stand, int [N, 2].
            begins: whose episode begins, bool [N].
        """
        if not self.penalty:
            return self._none
        self.counts[begins] = 0
        carrying = observations["carrying"].astype(np.int64)
        self._places = (np.arange(len(begins)), *agent_pos.T, observations["direction"], carrying)
        return self.penalty * self.counts[self._places]

    def note(self, actions: np.ndarray) -> None:
        """Count what the agents do in the places that `penalties` was last asked about, int64 [N]."""
        if self.penalty:
            taken = (*self._places, actions)
            self.counts[taken] += self.counts[taken] < np.iinfo(np.uint8).max

    def state(self) -> dict[str, Tensor]:
        """Return what `load` goes on from: which counts are not zero, and these."""
        places = np.flatnonzero(self.counts)
        return {"places": torch.from_numpy(places), "counts": torch.from_numpy(self.counts.reshape(-1)[places])}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.counts[:] = 0
        self.counts.reshape(-1)[state["places"].numpy()] = state["counts"].numpy()
