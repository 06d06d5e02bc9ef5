"""What a student met on its way: the steps that it learns from, and how its episodes went."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixture_of_experts import drop_experts
from policy.compiled.operations import add_measures
from policy.compiled.policies import PackedPolicy
from policy.missions import MissionFeatures
from policy.recurrent_policy import PolicyOutput, RecurrentPolicy


class ExpertDropout(NamedTuple):
    """The rule (`RoutingRule`) by which little-used experts were dropped along a rollout, see `drop_experts`.

    Attributes:
        noise: uniform in [0, 1), one tensor [T, N, E] per layer.
    """

    noise: list[Tensor]
    probability: float
    threshold: float

    def __call__(self, layer: int, routing: Tensor, t: int | slice) -> Tensor:
        return drop_experts(routing, self.noise[layer][t], self.probability, self.threshold)

    def of(self, envs: Tensor) -> "ExpertDropout":
        return self._replace(noise=[layer[:, envs] for layer in self.noise])


class Rollout(NamedTuple):
    """T steps of N environments.

    Attributes:
        observation: uint8 [T, N, 152].
        missions: the features of the missions met, differentiable.
        mission: int64 [T, N], each step's row in them.
        not_done: float [T, N], 0 where an episode begins.
        label: the bot's actions, int64 [T, N].
        due: which of the mission's actions the bot is about to do, int64 [T, N].
        penalty: what was subtracted from its logits for repetition, float [T, N, num_actions].
        logits: what was left of them, [T, N, num_actions], without gradients, as its actions were drawn from them.
        value: what the student expected, [T, N], without gradients; None for a policy without a value head.
        action: what was done, int64 [T, N].
        reward: what came of it, float [T, N].
        state: the policy's state before the first step.
        rule: the expert dropout that the steps were walked with, if any.
        policy: what walked them, with the weights it had.
        task: which of the tasks each environment runs, int64 [N].
    """

    observation: Tensor
    missions: MissionFeatures
    mission: Tensor
    not_done: Tensor
    label: Tensor
    due: Tensor
    penalty: Tensor
    logits: Tensor
    value: Tensor | None
    action: Tensor
    reward: Tensor
    state: list[Tensor]
    rule: ExpertDropout | None
    policy: RecurrentPolicy | PackedPolicy
    task: np.ndarray

    def unroll(self, policy: RecurrentPolicy | PackedPolicy, missions: MissionFeatures) -> PolicyOutput:
        """Let a packed policy run along these steps, with its own features of the missions, row by row as here."""
        walked = (self.observation, missions.features, self.mission, self.state, self.not_done)
        return policy.unroll(*walked, self.rule)

    def of(self, envs: Tensor) -> "Rollout":
        """Return the whole unrolls of some environments, numbered in `envs`, int64 [n]."""
        per_step = (
            "observation", "mission", "not_done", "label", "due", "penalty", "logits", "value", "action", "reward",
        )  # fmt: skip
        chosen = {name: self._asdict()[name] for name in per_step}
        return self._replace(
            **{name: None if steps is None else steps[:, envs] for name, steps in chosen.items()},
            state=[layer[envs] for layer in self.state],
            rule=None if self.rule is None else self.rule.of(envs),
            task=self.task[envs.cpu().numpy()],
        )


class EpisodeStatistics:
    """How the student's episodes went since the last row of metrics, where `counted` (bool [N])."""

    def __init__(self, counted: np.ndarray):
        self.counted = counted
        self.steps = np.zeros(len(counted), np.int64)  # of the running episodes
        self.clear()

    def clear(self) -> None:
        self.episodes = self.successes = 0
        self.path_ratios = 0.0

    def add(self, rewards: np.ndarray, done: np.ndarray, bot_steps: np.ndarray) -> None:
        """Count one step of all environments; `bot_steps` belong to the episodes that the step was part of."""
        self.steps += 1
        if done.any():
            success = done & (rewards > 0) & self.counted
            self.episodes += int((done & self.counted).sum())
            self.successes += int(success.sum())
            # A level that the bot finds solved needs no step of it: the student's one step then counts against one.
            self.path_ratios += sum((self.steps[success] / np.maximum(bot_steps[success], 1)).tolist())
            self.steps[done] = 0

    def row(self) -> dict[str, float]:
        return {
            "success_rate": self.successes / self.episodes if self.episodes else math.nan,
            "path_ratio": self.path_ratios / self.successes if self.successes else math.nan,
        }


class TaskStatistics:
    """How each of several tasks went since the last rows of metrics_by_task.csv.

    Args:
        tasks: their names.
        task_of_env: which of them each environment runs, int64 [N].
        counted: environments whose episodes count for success, bool [N].
    """

    def __init__(self, tasks: Sequence[str], task_of_env: np.ndarray, counted: np.ndarray):
        self.tasks, self.task_of_env, self.counted = tasks, task_of_env, counted
        self.clear()

    def clear(self) -> None:
        num_envs = len(self.task_of_env)
        self.steps = 0  # of each environment
        self.measures = np.zeros((num_envs, 3))  # sums over steps: accuracy, cross-entropy, LPC
        self.episodes = np.zeros((num_envs, 2), np.int64)  # ended, and solved, where counted

    def add_episodes(self, rewards: np.ndarray, done: np.ndarray) -> None:
        """Count one step of all environments."""
        self.episodes[:, 0] += done & self.counted
        self.episodes[:, 1] += done & self.counted & (rewards > 0)

    def add_steps(self, logits: Tensor, label: Tensor, lpc: Tensor) -> None:
        """Add T steps: logits [T, N, A], the bot's actions [T, N], LPC [T, N] (NaN without experts)."""
        self.steps += len(label)
        add_measures(logits, label, lpc, self.measures)

    def rows(self, update: int, steps_per_env: int) -> list[dict]:
        """Return a row per task, and begin the next ones; `steps_per_env` is since the start of the run."""
        rows = []
        for number, task in enumerate(self.tasks):
            its = self.task_of_env == number
            count = int(its.sum())
            # One environment after the other: the order of numpy's sums depends on the processor.
            accuracy, ce, lpc = (sum(column.tolist()) for column in self.measures[its].T)
            episodes, successes = self.episodes[its].sum(0).tolist()
            steps = count * self.steps
            rows.append(
                {
                    "update": update,
                    "task_id": task,
                    "env_steps": count * steps_per_env,
                    "success_rate": successes / episodes if episodes else math.nan,
                    "accuracy": accuracy / steps,
                    "ce": ce / steps,
                    "mean_lpc": lpc / steps,
                    "episodes": episodes,
                }
            )
        self.clear()
        return rows

    def state(self) -> dict[str, Tensor]:
        """Return what `load` goes on from."""
        arrays = {"steps": np.array(self.steps), "measures": self.measures, "episodes": self.episodes}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        self.measures, self.episodes = (state[name].numpy().copy() for name in ("measures", "episodes"))
