"""Missions by number: their embeddings, and what a policy computes of them.

A mission has a number for as long as the program runs (`MissionTable`), so that loops handle integers. What a policy
computes of missions alone stays the same until its weights change; `MissionFeatures` computes it once per mission.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from policy.language import MissionEncoder

MOST_KEPT = 1 << 16  # missions in a MissionTable: 100 MB of embeddings


class MissionTable:
    """Missions and their numbers, in the order in which they were first met.

    Attributes:
        numbers: mission -> its number.
        embeddings: float32 [capacity, embed_dim] on the given device; row i belongs to mission number i.
    """

    def __init__(self, encoder: MissionEncoder, device: torch.device | str = "cpu"):
        self.encoder = encoder
        self.numbers: dict[str, int] = {}
        self.embeddings = torch.zeros(64, encoder.embed_dim, device=device)

    def lookup(self, missions: Sequence[str]) -> np.ndarray:
        """Return the missions' numbers, int64 [N]; new missions are encoded on the way."""
        new = [mission for mission in dict.fromkeys(missions) if mission not in self.numbers]
        if new:
            self._add(new)
        return np.fromiter((self.numbers[mission] for mission in missions), np.int64, len(missions))

    def forget_many(self) -> int:
        """Forget all missions, and their numbers, once there are too many; return how many have been met since the last
        time. Levels that never repeat bring ever new ones."""
        count = len(self.numbers)
        if count > MOST_KEPT:
            self.numbers = {}
        return count

    def _add(self, missions: list[str]) -> None:
        first, last = len(self.numbers), len(self.numbers) + len(missions)
        while last > len(self.embeddings):
            self.embeddings = torch.cat([self.embeddings, torch.zeros_like(self.embeddings)])
        self.embeddings[first:last] = torch.from_numpy(self.encoder.embed(missions))
        self.numbers |= zip(missions, range(first, last), strict=True)


class MissionFeatures:
    """What a packed policy computes of missions alone, as its `step` and `unroll` read it.

    Args:
        compute: mission numbers [M] -> the features, tensors [M, ...].
        learn: whether gradients will flow through them.

    Attributes:
        features: of all missions so far, row by row as `rows` said.
    """

    def __init__(self, compute: Callable[[np.ndarray], tuple[Tensor, ...]], learn: bool):
        self.compute, self.learn = compute, learn
        self.features: tuple[Tensor, ...] = ()
        self._row_of: dict[int, int] = {}

    @property
    def numbers(self) -> np.ndarray:
        """The missions by number, int64 [M], row by row of the features."""
        return np.fromiter(self._row_of, np.int64, len(self._row_of))

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Return which rows of the features missions [N] have, int64 [N]; the features grow by those that are new."""
        new = [number for number in dict.fromkeys(numbers.tolist()) if number not in self._row_of]
        if new:
            with torch.set_grad_enabled(self.learn):
                features = self.compute(np.array(new))
                if self._row_of:
                    features = tuple(torch.cat(pair) for pair in zip(self.features, features, strict=True))
                self.features = features
            self._row_of |= zip(new, range(len(self._row_of), len(self._row_of) + len(new)), strict=True)
        return np.fromiter((self._row_of[number] for number in numbers.tolist()), np.int64, len(numbers))
