"""Evaluate one checkpoint: greedy actions on fixed levels, each played exactly once.

    python eval_mop.py --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt
    python eval_mop.py --checkpoint checkpoints/GoTos/trial_0/checkpoint_final.pt --tasks "BabyAI-GoToObj*"
    python eval_mop.py --checkpoint ... --disable_experts 0:2,1:2       # a lesion
    python eval_mop.py --checkpoint ... --own_pathway 0.1               # only the experts that the task uses

The levels are the first `num_episodes` evaluation levels of the task that the BabyAI bot can solve. Which they are, and
every number that comes out, is the same for any `num_envs` and in every run. Success means reward > 0. With `--sampled`
they are played once more, by actions drawn from the policy: `success_rate_sampled`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode, VectorWrapper
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX
from tqdm import tqdm

from basics.config import Parser, legacy_config, load_keys, tasks_of
from basics.errors import UserError, run_script
from basics.extensions import registered
from fast_babyai.factory import make_vec_env
from fast_babyai.reference import check_task, named_tasks, unsolvable_task
from fast_babyai.rules import EVAL_SEED_OFFSET, MAX_UNSOLVABLE_IN_A_ROW, LevelVectorEnv
from results.checkpoints import load_checkpoint
from results.eval_options import NUM_ENVS, NUM_EPISODES, Lesion, add_evaluation_flags, positive
from results.pathways import mean_routing
from results.routing_data import RoutingData

if TYPE_CHECKING:  # PyTorch takes seconds to import: not before a mistyped flag is complained of
    from policy.actor import PolicyActor
    from policy.agent import Agent

OWN_CELL, CELL_AHEAD = (3, 6), (3, 5)  # of the 7x7 view: the agent's, which shows what is in its hand, and the next one
DOOR, BOX = OBJECT_TO_IDX["door"], OBJECT_TO_IDX["box"]
OPEN, CLOSED, LOCKED = 0, 1, 2  # a door's state in an observation
LOOKS = 256  # kinds of objects by type and color, as `look_of` numbers them


def look_of(kind, color):
    """Return a number for what an object looks like, from minigrid's numbers (or arrays) of its type and color."""
    return kind * 16 + color


def events_of_step(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> list[tuple[int, str]]:
    """Return what a step did to objects, as (environment, what), of the observations before and after it.

    What: `pick up`, `drop`, `unlock` (which opens the door), `open` or `close` (a door), `open box`.
    """
    events = []
    hand = after["carrying"].astype(int) - before["carrying"]
    events += [(index, "pick up") for index in np.flatnonzero(hand > 0).tolist()]
    events += [(index, "drop") for index in np.flatnonzero(hand < 0).tolist()]
    was, now = (np.asarray(each["image"][:, *CELL_AHEAD], int) for each in (before, after))
    stayed = before["direction"] == after["direction"]  # ahead is still the same cell, unless it walked
    for index in np.flatnonzero(stayed & (was != now).any(1) & (hand == 0)).tolist():
        kind, state = was[index, 0], (was[index, 2], now[index, 2])
        if kind == DOOR and now[index, 0] == DOOR and was[index, 1] == now[index, 1]:
            what = {(LOCKED, OPEN): "unlock", (CLOSED, OPEN): "open", (OPEN, CLOSED): "close"}.get(state)
            events += [(index, what)] if what else []
        elif kind == BOX:
            events.append((index, "open box"))
    return events


class EvalVectorEnv(VectorWrapper):
    """`num_envs` environments that share out a task's evaluation levels until each was played once.

    Levels are dealt in the order of their seeds to whichever environment is free. A level that the bot cannot solve is
    passed over, counted in `bot_plan_failures`, and the next seed takes its place. When no level is left, free
    environments idle.

    To the wrapped environment's infos come
        running        bool [N]: the state just returned belongs to an episode that counts
        episode_start  bool [N]: it is the first state of such an episode
        timestep       int64 [N]: steps since the episode's start
        target_in_view bool [N]: something that looks like a goal of the mission is seen, elsewhere than in the hand

    Attributes:
        episodes: level seed -> dict with mission, seed, success, num_steps, bot_steps, events, env_context, of every
            episode begun; success and num_steps are None until it ends. An event is [timestep, what, [x, y]]: what the
            action of that step did to the object in that cell (`events_of_step`). Where the mission has two parts,
            there is parts_done: for each, as named, the timestep of the action that completed it, None where none did
            or that ended the episode.
        bot_plan_failures: levels passed over.
        final_observations: after a step in which episodes ended, what they ended with.
    """

    env: LevelVectorEnv

    def __init__(
        self,
        task_id: str,
        num_envs: int = NUM_ENVS,
        num_episodes: int = NUM_EPISODES,
        *,
        max_steps: int | None = None,
        backend: str = "fast",
        expert: bool = False,
        first_level: int = EVAL_SEED_OFFSET,
    ):
        mode = AutoresetMode.DISABLED
        super().__init__(
            make_vec_env(task_id, num_envs, backend=backend, max_steps=max_steps, expert=expert, autoreset_mode=mode)
        )
        self.task_id = task_id
        self.num_episodes = num_episodes
        self.first_level = first_level

    def reset(self, *, seed: None = None, options: None = None):
        """Begin anew with the first evaluation level. The levels are fixed: there is nothing to seed."""
        self.episodes: dict[int, dict] = {}
        self.bot_plan_failures = 0
        self.episodes_finished = 0
        self._unsolvable_in_a_row = 0
        self._next_level = self.first_level
        self._level_seed = np.full(self.num_envs, self.first_level, np.int64)
        self._running = np.zeros(self.num_envs, bool)
        self._episode_start = np.zeros(self.num_envs, bool)
        self._timestep = np.zeros(self.num_envs, np.int64)
        self._looks_of_goals = np.zeros((self.num_envs, LOOKS), bool)
        self._infos: dict = {}
        self._deal(np.ones(self.num_envs, bool))
        return self._observations, self._all_infos()

    def step(self, actions):
        actions = np.where(self._running, actions, int(Actions.done))
        before, position = self._observations, self._infos["agent_pos"]
        self._observations, rewards, terminated, truncated, self._infos = self.env.step(actions)
        stayed = (self._infos["agent_pos"] == position).all(1)
        for index, what in events_of_step(before, self._observations):
            if self._running[index] and stayed[index]:
                ahead = (position[index] + DIR_TO_VEC[before["direction"][index]]).tolist()
                episode = self.episodes[int(self._level_seed[index])]
                episode["events"].append([int(self._timestep[index]), what, ahead])
        ended = terminated | truncated
        parts_done = self.env.parts_done
        newly_done = (parts_done > 0) & (self._parts_done == 0) & (self._running & ~ended)[:, None]
        for index, part in np.argwhere(newly_done).tolist():
            self.episodes[int(self._level_seed[index])]["parts_done"][part] = int(self._timestep[index])
        self._parts_done = parts_done
        self._timestep += 1
        self._episode_start[:] = False
        for index in np.flatnonzero(ended & self._running):
            episode = self.episodes[int(self._level_seed[index])]
            episode["success"] = bool(rewards[index] > 0)
            episode["num_steps"] = int(self._timestep[index])
            self.episodes_finished += 1
        if ended.any():
            self._running &= ~ended
            self.final_observations = {name: values.copy() for name, values in self._observations.items()}
            self._deal(ended)
        return self._observations, rewards, terminated, truncated, self._all_infos()

    def _all_infos(self) -> dict:
        return self._infos | {
            "running": self._running.copy(),
            "episode_start": self._episode_start.copy(),
            "timestep": self._timestep.copy(),
            "target_in_view": self._sees_target(),
        }

    def _sees_target(self) -> np.ndarray:
        image = self._observations["image"]
        looks = look_of(image[..., 0].astype(int), image[..., 1])
        looks[:, *OWN_CELL] = 0
        return np.asarray(np.take_along_axis(self._looks_of_goals, looks.reshape(self.num_envs, -1), 1).any(1))

    def _deal(self, free: np.ndarray) -> None:
        """Restart the environments where `free` (bool [N]): on the next levels, or idle when there are enough."""
        waiting = np.flatnonzero(free)
        while waiting.size:
            chosen = waiting[: self.num_episodes - len(self.episodes)]
            if not chosen.size and not self._running.any():
                return  # all is done, there is nothing to idle beside
            self._level_seed[chosen] = self._next_level + np.arange(len(chosen))
            self._next_level += len(chosen)
            self._restart(waiting)
            contexts = self.env.env_contexts
            solvable = self._infos["bot_steps"][chosen] >= 0
            for index, is_solvable in zip(chosen.tolist(), solvable.tolist(), strict=True):
                if is_solvable:
                    self._unsolvable_in_a_row = 0
                    self._begin_episode(index, contexts[index])
                else:
                    self._unsolvable_in_a_row += 1
                    self.bot_plan_failures += 1
            if self._unsolvable_in_a_row >= MAX_UNSOLVABLE_IN_A_ROW:
                raise unsolvable_task(self.task_id)
            waiting = chosen[~solvable]

    def _begin_episode(self, index: int, env_context: dict) -> None:
        self._running[index] = self._episode_start[index] = True
        self.episodes[int(self._level_seed[index])] = {
            "mission": self._infos["mission"][index],
            "seed": int(self._level_seed[index]),
            "success": None,
            "num_steps": None,
            "bot_steps": int(self._infos["bot_steps"][index]),
            "events": [],
            "env_context": env_context,
        }
        if self._parts_done[index, 0] >= 0:
            self.episodes[int(self._level_seed[index])]["parts_done"] = [None, None]
        self._looks_of_goals[index] = False
        for goal in env_context["goals"]:
            self._looks_of_goals[index, look_of(OBJECT_TO_IDX[goal["type"]], COLOR_TO_IDX[goal["color"]])] = True

    def _restart(self, indices: np.ndarray) -> None:
        mask = np.zeros(self.num_envs, bool)
        mask[indices] = True
        options = None if mask.all() else {"reset_mask": mask.copy()}
        self._observations, infos = self.env.reset(seed=self._level_seed.tolist(), options=options)
        for name, values in infos.items():
            if name in self._infos and not name.startswith("_"):
                values = np.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, self._infos[name])
            self._infos[name] = values
        self._timestep[mask] = 0
        self._parts_done = self.env.parts_done


class Actor(Protocol):
    """Whoever plays: a trained agent, the bot itself, ..."""

    expert_costs: Sequence[Sequence[float]]  # per layer, its experts' costs; empty without routers

    def act(
        self, observations: dict[str, np.ndarray], infos: dict
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
        """Return actions [N], per layer the router weights [N, E] that led to them, and logits [N, A] if it has any."""
        ...


class AlongTheBot:
    """Lets the bot walk, while `actor` says what it would have done: so all actors' routing is of the same steps."""

    def __init__(self, actor: "PolicyActor"):
        self.actor = actor
        self.expert_costs = actor.expert_costs

    def act(self, observations, infos):
        _, weights, logits = self.actor.act(observations, infos, done_instead=infos["bot_action"])
        return infos["bot_action"], weights, logits


class Record:
    """Arrays of every step, copied into large blocks: a million small arrays would leave the heap full of holes."""

    def __init__(self, steps_per_block: int = 1024):
        self.steps_per_block = steps_per_block
        self.blocks: list[list[np.ndarray]] = []
        self.num_steps = 0

    def append(self, *rows: np.ndarray) -> None:
        """Add one step: arrays [N, ...], alike in every step."""
        place = self.num_steps % self.steps_per_block
        if place == 0:
            self.blocks.append([np.empty((self.steps_per_block, *row.shape), row.dtype) for row in rows])
        for column, row in zip(self.blocks[-1], rows, strict=True):
            column[place] = row
        self.num_steps += 1

    def columns(self) -> list[np.ndarray]:
        """Return each array of all steps, [steps * N, ...]."""
        columns = (np.concatenate(column)[: self.num_steps] for column in zip(*self.blocks, strict=True))
        return [column.reshape(column.shape[0] * column.shape[1], *column.shape[2:]) for column in columns]


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        metrics: success_rate; path_ratio, mean over successful episodes of agent steps / bot steps (NaN without any);
            mean_lpc, over all timesteps (NaN for a policy without routers); bot_plan_failures.
        routing_data: every step in the order of episode and timestep, weights as used (so after a lesion), and the
            episodes; episode i is the i-th of the solvable levels. A policy without routers has no layers and LPC NaN.
    """

    metrics: dict[str, float]
    routing_data: RoutingData


def evaluate(
    agent: "Agent",
    task_id: str,
    num_episodes: int = NUM_EPISODES,
    *,
    num_envs: int = NUM_ENVS,
    max_steps: int | None = None,
    backend: str = "fast",
    lesion: Lesion | None = None,
    on_episodes: Callable[[int], object] | None = None,
    first_level: int = EVAL_SEED_OFFSET,
    sampled: bool = False,
    along_the_bot: bool = False,
) -> Evaluation:
    """Play `num_episodes` evaluation levels of a task greedily and measure success, paths and routing.

    Args:
        agent: on the CPU, as `agent.load_agent` returns it.
        max_steps: step limit of an episode; None keeps the task's own.
        num_envs: environments side by side; the result does not depend on it.
        lesion: experts switched off. With `own_pathway`, the whole policy plays first, to know the task's pathway.
        on_episodes: called with the number of episodes just finished, for progress bars.
        first_level: the level seed to begin with; to play one level again, name its seed and one episode.
        sampled: instead of greedily, by actions drawn from the policy; the same ones in every evaluation.
        along_the_bot: the bot walks, and the agent only says what it would do (`AlongTheBot`).

    Raises:
        UserError: unknown task, impossible lesion, or weights that are not finite numbers.
    """
    from policy.actor import PolicyActor

    if not all(parameter.isfinite().all() for parameter in agent.parameters()):
        raise UserError("its weights hold NaN or infinity: this training run diverged, there is nothing to evaluate")
    num_envs = min(num_envs, num_episodes)
    levels = {"max_steps": max_steps, "backend": backend, "first_level": first_level}
    if lesion is not None and lesion.own_pathway and agent.expert_hidden_sizes:
        whole = evaluate(agent, task_id, num_episodes, num_envs=num_envs, **levels)
        lesion = lesion.of_task(mean_routing(whole.routing_data))
    rule = None if lesion is None else lesion.rule(agent.expert_hidden_sizes)
    env = EvalVectorEnv(task_id, num_envs, num_episodes, expert=along_the_bot, **levels)
    try:
        actor = PolicyActor(agent, num_envs, rule, sampled)
        metrics, routing_data = play(AlongTheBot(actor) if along_the_bot else actor, env, on_episodes)
    finally:
        env.close()
    columns = registered("column", agent.extensions)
    return Evaluation(metrics | {name: float(column(routing_data)) for name, column in columns.items()}, routing_data)


def play(actor: Actor, env: EvalVectorEnv, on_episodes: Callable[[int], object] | None = None) -> Evaluation:
    """Let `actor` play all episodes of `env`."""
    import torch

    from mixture_of_experts import compute_lpc

    record = Record()
    observations, infos = env.reset()
    finished = 0
    while infos["running"].any():
        actions, weights, logits = actor.act(observations, infos)
        record.append(
            infos["running"],
            infos["level_seed"],
            infos["timestep"].astype(np.int32),
            infos["agent_pos"].astype(np.int16),
            observations["carrying"],
            actions.astype(np.int8),
            observations["direction"].astype(np.int8),
            infos["target_in_view"].astype(np.int8),
            np.empty((env.num_envs, 0), np.float16) if logits is None else logits.astype(np.float16),
            *weights,
        )
        observations, _, _, _, infos = env.step(actions)
        if on_episodes is not None and env.episodes_finished > finished:
            on_episodes(env.episodes_finished - finished)
        finished = env.episodes_finished

    seeds = sorted(env.episodes)
    episodes = [env.episodes[seed] for seed in seeds]
    running, *columns = record.columns()
    columns = [column[running] for column in columns]
    order = np.lexsort((columns[1], columns[0]))  # by level, then by timestep
    level_seed, timestep, position, carrying, action, direction, target_in_view, logits, *weights = (
        column[order] for column in columns
    )
    lpc = np.full(len(order), np.nan, np.float32)
    if weights:
        lpc = compute_lpc([torch.from_numpy(layer) for layer in weights], actor.expert_costs).numpy()
    episode = np.searchsorted(seeds, level_seed)
    further = {"direction": direction, "target_in_view": target_in_view, "logits": logits}
    routing_data = RoutingData(episode, timestep, position, weights, lpc, carrying, action, episodes, **further)

    path_ratios = [episode["num_steps"] / episode["bot_steps"] for episode in episodes if episode["success"]]
    metrics = {
        "success_rate": math.fsum(episode["success"] for episode in episodes) / len(episodes),
        "path_ratio": math.fsum(path_ratios) / len(path_ratios) if path_ratios else math.nan,
        "mean_lpc": math.fsum(lpc.tolist()) / len(lpc),
        "bot_plan_failures": env.bot_plan_failures,
    }
    return Evaluation(metrics, routing_data)


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help="the checkpoint_*.pt to evaluate")
    parser.add_argument("--task_id", help="play this task, also another one than the checkpoint was trained on")
    parser.add_argument(
        "--tasks", help="play these tasks, names or patterns, comma-separated [what it was trained on, each of a set]"
    )
    parser.add_argument("--max_steps", type=positive, help="step limit of an episode [default: as in training]")
    parser.add_argument(
        "--repetition_penalty",
        type=float,
        metavar="C",
        help="act with this penalty on repeating oneself (config.yaml) in place of the checkpoint's own",
    )
    add_evaluation_flags(parser)
    arguments = parser.parse_args()
    if arguments.repetition_penalty is not None:
        load_keys()["repetition_penalty"].check(arguments.repetition_penalty)
    lesion = Lesion.parse(arguments.disable_experts, arguments.min_router_weight, arguments.own_pathway)
    from policy.agent import load_agent

    checkpoint = load_checkpoint(arguments.checkpoint)
    config = legacy_config(checkpoint["config"])
    if arguments.task_id is not None and arguments.tasks is not None:
        raise UserError("--task_id and --tasks both say what to play: give one of them")
    if arguments.tasks is not None:
        tasks = named_tasks(arguments.tasks)
    elif arguments.task_id is None and config.get("task_id") is None:
        raise UserError(f"{arguments.checkpoint}: its config does not say which task it was trained on; add --task_id")
    else:
        tasks = [arguments.task_id] if arguments.task_id is not None else tasks_of(config)
    max_steps = arguments.max_steps or config["max_steps"]
    num_episodes = arguments.num_episodes or NUM_EPISODES
    for task_id in tasks:
        check_task(task_id)  # before the sentence encoder, which takes its time
    agent = load_agent(checkpoint, arguments.lang_encoder)
    if arguments.repetition_penalty is not None:
        agent.repetition_penalty = arguments.repetition_penalty
    for place, task_id in enumerate(tasks):
        with tqdm(total=num_episodes * (1 + arguments.sampled), desc=task_id, unit="episode", leave=False) as progress:
            play_levels = functools.partial(
                evaluate,
                agent,
                task_id,
                num_episodes,
                num_envs=arguments.num_envs,
                max_steps=max_steps,
                backend=arguments.backend,
                lesion=lesion,
                on_episodes=progress.update,
            )
            evaluation = play_levels()
            sampled = {}
            if arguments.sampled:
                sampled["success_rate_sampled"] = play_levels(sampled=True).metrics["success_rate"]
        steps = len(evaluation.routing_data)
        print(f"{chr(10) if place else ''}checkpoint           {arguments.checkpoint}")
        print(f"task                 {task_id}, {num_episodes} episodes, {steps} steps")
        if lesion:
            print(f"lesion               {lesion.name}")
        for name, value in (evaluation.metrics | sampled).items():
            print(f"{name:<20} {value:.4g}" if isinstance(value, float) else f"{name:<20} {value}")


if __name__ == "__main__":
    run_script(main)
