"""Missions by number: what encoders make of them, and what a policy computes of that.

A mission has a number for as long as the program runs (`MissionTable`), so that loops handle integers. What a policy
computes of missions alone stays the same until its weights change; `MissionFeatures` computes it once per mission.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from basics.errors import UserError

MOST_KEPT = 1 << 16  # missions in a MissionTable: 100 MB of embeddings
PROBES = (  # missions that every encoder must tell apart, and by which it is recognised
    "go to the red ball",
    "pick up the green key",
    "open the blue door",
    "put the grey box next to the yellow ball",
)


class MissionEncoder(ABC):
    """What makes numbers of missions (`lang_encoder`): `SentenceEncoder`, `MissionParser`, `WordNumbers`.

    Attributes:
        name: the one really used, for the checkpoint's config.
        embed_dim: numbers per mission, its embedding.
    """

    name: str
    embed_dim: int

    @abstractmethod
    def embed(self, missions: Iterable[str]) -> np.ndarray:
        """Return float32 [number of missions, embed_dim].

        Raises:
            UserError: one of them is beyond this encoder.
        """

    @functools.cached_property
    def probes(self) -> np.ndarray:
        """Its embeddings of PROBES, float32 [P, embed_dim]."""
        return self.embed(PROBES)

    def check_same(self, probes: Tensor) -> None:
        """Raise a UserError unless this encoder's embeddings of PROBES are `probes` [P, embed_dim], of a checkpoint:
        with another one, or a damaged copy, a policy would be told of other missions than it was trained on."""
        if not np.array_equal(probes.float().numpy(), self.probes):
            raise UserError(
                f"lang_encoder {self.name} writes missions as other numbers than when this checkpoint was trained:"
                " use the version of this program that trained it"
            )


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
