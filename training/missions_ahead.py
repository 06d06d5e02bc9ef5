"""Missions of the levels to come, encoded by a second process beside training, where a sentence encoder does that.

    python -m training.missions_ahead JSON < how far training is, a line of numbers each time

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
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from basics.config import OWN_ENCODERS
from basics.errors import warn
from fast_babyai.rules import LevelVectorEnv, training_level_seed

MANY_MISSIONS = (
    256  # distinct missions that training has met before the process is worth its start: most tasks have fewer
)
AT_ONCE = 32  # missions encoded between two looks at how far training is
AHEAD = 4096  # levels that the process may be ahead of training, of all tasks together


def free_cores(num_threads: int) -> int:
    """Return how many cores this program may use beyond its own threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores - num_threads


class MissionsAhead:
    """The process as training sees it: it starts when it is worth it, if a core is free.

    A place is where a level of a task stands in the order of `rules.training_level_seed`: episode * number of the
    task's environments + environment.
    """

    def __init__(self, encoder: str, env: LevelVectorEnv, seed: int, train_levels: int | None, num_threads: int):
        self.task_of_env, self.counts = env.task_of_env, np.bincount(env.task_of_env)
        self.job = {"encoder": encoder, "tasks": env.tasks, "counts": self.counts.tolist()}
        self.job |= {"seed": seed, "train_levels": train_levels}
        self._is_worth_it = encoder not in OWN_ENCODERS and free_cores(num_threads) > 0
        self._process: subprocess.Popen | None = None

    def reached(self, next_episode: np.ndarray, num_missions: int) -> None:
        """Tell the process how far training is: at these episodes [N], having met so many distinct missions."""
        if not self._is_worth_it or (self._process is None and num_missions < MANY_MISSIONS):
            return
        furthest = np.zeros(len(self.counts), np.int64)
        np.maximum.at(furthest, self.task_of_env, next_episode)
        places = (furthest * self.counts).tolist()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "training.missions_ahead", json.dumps(self.job | {"first": places})],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=Path(__file__).parent.parent,
                start_new_session=True,  # Ctrl-C is for the program, which still encodes missions while it saves
            )
        assert self._process.stdin is not None  # a pipe
        try:
            self._process.stdin.write(" ".join(map(str, places)) + "\n")
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


def encode_ahead(
    encoder: str, first: Sequence[int], tasks: Sequence[str], counts: Sequence[int], seed: int, train_levels: int | None
) -> None:
    """Encode missions from the places `first` on, one of each task, until standard input ends; see the module's
    docstring. The task whose levels are nearest to be played has the next turn."""
    from policy.language import SentenceEncoder

    reached, changed = list(first), threading.Condition()

    def listen() -> None:
        for line in sys.stdin:
            with changed:
                reached[:] = map(int, line.split())
                changed.notify()
        os._exit(0)  # whatever the encoder is doing

    def missions_of(task: int) -> Iterator[str]:
        return missions_from(places[task], tasks[task], seed, counts[task], train_levels)

    threading.Thread(target=listen, daemon=True).start()
    mission_encoder, places = SentenceEncoder(encoder), list(first)
    missions = [missions_of(task) for task in range(len(tasks))]
    while True:
        with changed:
            while True:
                lead, task = min((place - reached[task], task) for task, place in enumerate(places))
                if lead < AHEAD // len(tasks):
                    break
                changed.wait()
            if lead < 0:  # training has overtaken: what it has passed it has encoded
                places[task] = reached[task] + counts[task]
                missions[task] = missions_of(task)
        mission_encoder.embed([next(missions[task]) for _ in range(AT_ONCE)])
        places[task] += AT_ONCE


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(10)  # where no core is free after all, training goes first
    encode_ahead(**json.loads(sys.argv[1]))
