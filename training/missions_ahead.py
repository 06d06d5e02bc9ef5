"""Missions of the levels to come, encoded by a second process beside training, where a sentence encoder does that.

    python -m training.missions_ahead JSON < how far training is, a number a line

JSON is an object of `encode_ahead`'s arguments. Which levels training will play, and in about what order, is known from
its seed. The process generates them too, encodes their missions and leaves the embeddings in the encoder's cache on
disk, where training looks before it encodes a mission itself. An embedding is the same whoever computes it: whether
this process is there, and how far it is ahead, changes how long training takes and nothing else. It ends with its
standard input, so also with a killed program.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from basics.config import OWN_ENCODERS
from basics.errors import warn
from fast_babyai.rules import training_level_seed

MANY_MISSIONS = (
    256  # distinct missions that training has met before the process is worth its start: most tasks have fewer
)
AT_ONCE = 32  # missions encoded between two looks at how far training is
AHEAD = 4096  # levels that the process may be ahead of training


def free_cores(num_threads: int) -> int:
    """Return how many cores this program may use beyond its own threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores - num_threads


class MissionsAhead:
    """The process as training sees it: it starts when it is worth it, if a core is free.

    A place is where a level stands in the order of `rules.training_level_seed`: episode * num_envs + environment.
    """

    def __init__(
        self, encoder: str, task_id: str, seed: int, num_envs: int, train_levels: int | None, num_threads: int
    ):
        self.job = {"encoder": encoder, "task_id": task_id, "seed": seed, "num_envs": num_envs}
        self.job["train_levels"] = train_levels
        self._is_worth_it = encoder not in OWN_ENCODERS and free_cores(num_threads) > 0
        self._process: subprocess.Popen | None = None

    def reached(self, place: int, num_missions: int) -> None:
        """Tell the process that training is at a place, having met so many distinct missions."""
        if not self._is_worth_it or (self._process is None and num_missions < MANY_MISSIONS):
            return
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "training.missions_ahead", json.dumps(self.job | {"first": place})],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=Path(__file__).parent.parent,
                start_new_session=True,  # Ctrl-C is for the program, which still encodes missions while it saves
            )
        assert self._process.stdin is not None  # a pipe
        try:
            self._process.stdin.write(f"{place}\n")
            self._process.stdin.flush()
        except OSError:
            warn("the process that encodes missions ahead of training has ended; training goes on without, only slower")
            self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None  # a pipe
            self._process.kill()  # its writes are SQLite's transactions: there is nothing that it could leave half done
            self._process.wait()
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process = None
        self._is_worth_it = False


def missions_from(place: int, task_id: str, seed: int, num_envs: int, train_levels: int | None) -> Iterator[str]:
    """Yield the missions of the levels at this place and all that follow."""
    from fast_babyai.generator import LevelGenerator  # the compiler takes a second to import, and training has it

    generator = LevelGenerator(task_id)
    while True:
        episode, env_index = divmod(place, num_envs)
        yield from generator.missions([training_level_seed(seed, env_index, num_envs, episode, train_levels)])
        place += 1


def encode_ahead(encoder: str, first: int, **order) -> None:
    """Encode missions from the place `first` on, until standard input ends; see the module's docstring."""
    from policy.language import SentenceEncoder

    reached, changed = [first], threading.Condition()

    def listen() -> None:
        for line in sys.stdin:
            with changed:
                reached[0] = int(line)
                changed.notify()
        os._exit(0)  # whatever the encoder is doing

    threading.Thread(target=listen, daemon=True).start()
    mission_encoder, place = SentenceEncoder(encoder), first
    missions = missions_from(place, **order)
    while True:
        with changed:
            while place >= reached[0] + AHEAD:
                changed.wait()
        if place < reached[0]:  # training has overtaken: what it has passed it has encoded
            place = reached[0] + order["num_envs"]
            missions = missions_from(place, **order)
        mission_encoder.embed([next(missions) for _ in range(AT_ONCE)])
        place += AT_ONCE


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(10)  # where no core is free after all, training goes first
    encode_ahead(**json.loads(sys.argv[1]))
