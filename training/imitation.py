"""Online imitation, the loop that train.py and train_mop.py share.

The student walks; the BabyAI bot says at every state what it would have done; the student learns from those labels by
backpropagation through `unroll_len` steps of `num_envs` environments at a time, `num_updates` times.

The bot walks along, or a student that knows nothing would never see what comes after the first door: each step is the
bot's with probability `bot_share` (DAgger's beta: Ross, Gordon, Bagnell 2011, arXiv 1011.0686). One environment in
eight is the student's alone, and what is said of success is counted there.
"""

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from basics.config import config_parser, legacy_config, parse_config
from basics.errors import UserError, warn
from fast_babyai.factory import make_vec_env, sample_missions
from mixture_of_experts import JoinedPolicy, PolicyActivations, compute_lpc, drop_experts
from policy.agent import Agent, Teller, choose_device
from policy.input import OBSERVATION_SIZE, Told, observation_vector
from policy.language import MissionEncoder
from results import checkpoints, paths, tables
from training.missions_ahead import MissionsAhead

RESUMABLE_KEYS = {  # what may change when a run is resumed: none of it changes what is computed
    "num_updates", "log_interval", "checkpoint_interval", "wandb_project", "checkpoint_dir", "lang_fallback"
}  # fmt: skip
MEANS = ("loss", "ce", "penalty", "accuracy", "mean_lpc")  # metrics that are means over the updates since the last row
SHOWN = ("loss", "accuracy", "success_rate", "path_ratio", "mean_lpc", "steps_per_second")  # beside the progress bar


class Rollout(NamedTuple):
    """T steps of N environments.

    Attributes:
        observation: uint8 [T, N, 152].
        told: the missions, from `Teller`, of T * N rows.
        keep: float [T, N], 0 where an episode begins.
        label: the bot's actions, int64 [T, N].
        dropout_noise: uniform, per layer [T, N, E]; empty without expert dropout.
        state: the policy's state before the first step.
        activations: what the policy computed on the way, where that is kept.
        joined: the policy's weights in the form in which they were read.
    """

    observation: Tensor
    told: Told
    keep: Tensor
    label: Tensor
    dropout_noise: list[Tensor]
    state: list[Tensor]
    activations: PolicyActivations | None
    joined: JoinedPolicy


def lpc_penalty(lpc: Tensor, ce: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Return the price of the pathways used: `lpc_alpha * LPC`, or with `normalize_lpc` that over (CE + lpc_epsilon).

    The cross-entropy in the denominator only scales the price (eq. 2 of arXiv 2506.02813); no gradient flows into it,
    or the policy could lower the price by imitating worse.
    """
    price = config["lpc_alpha"] * lpc
    return price / (ce.detach() + config["lpc_epsilon"]) if config["normalize_lpc"] else price


def learning_rate(update: int, config: Mapping[str, Any]) -> float:
    """Return the learning rate of update 0 .. num_updates - 1."""
    progress = update / config["num_updates"]
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
    }
    return config["lr"] * factor[config["lr_schedule"]]


def walked_alone(config: Mapping[str, Any]) -> np.ndarray:
    """Return in which environments every step is the student's, bool [num_envs]: one in eight, but at least one."""
    num_envs = config["num_envs"]
    return np.arange(num_envs) < (max(1, num_envs // 8) if config["bot_share"] > 0 else num_envs)


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
            self.path_ratios += float((self.steps[success] / np.maximum(bot_steps[success], 1)).sum())
            self.steps[done] = 0

    def row(self) -> dict[str, float]:
        return {
            "success_rate": self.successes / self.episodes if self.episodes else math.nan,
            "path_ratio": self.path_ratios / self.successes if self.successes else math.nan,
        }


class Learner:
    """All that a training run carries from one update to the next.

    Args:
        config: every key of config.yaml that concerns this kind of policy.
    """

    def __init__(self, config: dict[str, Any]):
        self.device = choose_device(config["device"])
        torch.set_num_threads(config["num_threads"])
        self.seed = config["trial"] if config["seed"] is None else config["seed"]
        torch.manual_seed(self.seed)
        encoder = MissionEncoder(config["lang_encoder"], config["lang_fallback"])
        self.config = config | {"lang_encoder": encoder.name, "num_actions": 7}
        self.agent = Agent(self.config, encoder, self.device)
        self.config["input_dim"] = self.agent.policy.input_projection.encoder.size
        self.agent.spread_missions(sample_missions(config["task_id"], backend=config["backend"]))
        self.agent.lang_proj.requires_grad_(config["train_lang_proj"])
        self.parameters = [parameter for parameter in self.agent.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self._parameter_groups(), lr=config["lr"], fused=self.device.type != "mps")
        self.noise = torch.Generator().manual_seed(self.seed)
        self.env = make_vec_env(
            config["task_id"],
            config["num_envs"],
            backend=config["backend"],
            max_steps=config["max_steps"],
            train_levels=config["train_levels"],
        )
        order = (self.seed, config["num_envs"], config["train_levels"])
        self.missions_ahead = MissionsAhead(encoder.name, config["task_id"], *order, config["num_threads"])
        self.policy_state = self.agent.policy.initial_state(config["num_envs"])
        self.activations = self.agent.empty_activations(config["unroll_len"], config["num_envs"])
        self.keep = np.zeros(config["num_envs"], np.float32)
        self.alone = walked_alone(config)
        self.episodes = EpisodeStatistics(self.alone)
        self.update = 0
        self.sums = torch.zeros(len(MEANS), device=self.device)
        self.updates_summed = 0

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return what the optimizer trains, each group with the factor by which its learning rate differs from lr."""
        routers = {id(p) for name, p in self.agent.policy.named_parameters() if ".router." in name}
        slow = [parameter for parameter in self.parameters if id(parameter) in routers]
        rest = [parameter for parameter in self.parameters if id(parameter) not in routers]
        groups = [{"params": rest, "lr_factor": 1.0}]
        return [*groups, {"params": slow, "lr_factor": self.config["router_lr_factor"]}] if slow else groups

    def start(self) -> None:
        """Begin the first episodes."""
        self.observations, self.infos = self.env.reset(seed=self.seed)

    @property
    def env_steps(self) -> int:
        return self.update * self.config["num_envs"] * self.config["unroll_len"]

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Walk `unroll_len` steps: the student samples its actions from its policy, and the bot takes its share."""
        steps, num_envs, agent = self.config["unroll_len"], self.config["num_envs"], self.agent
        self.missions_ahead.reached(int(self.env.next_episode.max()) * num_envs, agent.missions.forget_many())
        observation = torch.zeros(steps, num_envs, OBSERVATION_SIZE, dtype=torch.uint8)
        keep = torch.zeros(steps, num_envs)
        label, rows = np.zeros((2, steps, num_envs), np.int64)
        # argmax of probability / exponential noise is a sample of the policy (the Gumbel trick)
        noise = torch.empty(steps, num_envs, self.config["num_actions"]).exponential_(generator=self.noise)
        noise = noise.log_().numpy()
        bot_walks = torch.rand(steps, num_envs, generator=self.noise).numpy() < self.config["bot_share"]
        bot_walks &= ~self.alone
        dropout_noise = self._dropout_noise()
        before = self.policy_state
        with torch.enable_grad():
            joined = agent.policy.join()
        joined_now = joined.as_arrays() if self.activations else joined
        teller = Teller(agent, joined)
        mission_row = teller.rows(agent.missions.lookup(self.infos["mission"]))
        told = teller.now(mission_row)
        state = before
        for t, (seen, kept) in enumerate(zip(observation, keep, strict=True)):
            seen.numpy()[:] = observation_vector(self.observations)
            kept.numpy()[:] = self.keep
            label[t], rows[t] = self.infos["bot_action"], mission_row
            output = agent.step(
                seen.to(self.device),
                told,
                state,
                kept.to(self.device),
                joined_now,
                self.activations,
                t,
                self._dropout_rule([layer[t] for layer in dropout_noise]),
            )
            state = output.state
            chosen = (output.logits.cpu().numpy() - noise[t]).argmax(-1)
            actions = np.where(bot_walks[t], label[t], chosen)
            bot_steps = self.infos["bot_steps"]
            self.observations, rewards, terminated, truncated, self.infos = self.env.step(actions)
            done = terminated | truncated
            self.episodes.add(rewards, done, bot_steps)
            self.keep = (~done).astype(np.float32)
            if done.any():
                began = np.flatnonzero(done)
                mission_row[began] = teller.rows(agent.missions.lookup(self.infos["mission"][began]))
                told = teller.now(mission_row)
        return Rollout(
            observation.to(self.device),
            teller.told._replace(rows=torch.from_numpy(rows.ravel()).to(self.device)),
            keep.to(self.device),
            torch.from_numpy(label).to(self.device),
            dropout_noise,
            before,
            self.activations,
            joined,
        )

    def learn(self, rollout: Rollout) -> None:
        """One gradient step on what the bot would have done along a rollout."""
        output = self.agent.policy.unroll(
            rollout.observation,
            rollout.told,
            rollout.state,
            rollout.keep,
            rollout.joined,
            rollout.activations,
            self._dropout_rule(rollout.dropout_noise),
        )
        ce = nn.functional.cross_entropy(output.logits.flatten(0, 1), rollout.label.flatten())
        lpc = penalty = ce.new_zeros(())
        if output.routing:
            lpc = compute_lpc(output.routing, self.agent.expert_hidden_sizes).mean()
            penalty = lpc_penalty(lpc, ce, self.config)
        loss = ce + penalty

        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_factor"] * learning_rate(self.update, self.config)
        self.optimizer.zero_grad()
        loss.backward()
        if self.config["max_grad_norm"] is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config["max_grad_norm"])
        self.optimizer.step()

        self.policy_state = [layer.detach().clone() for layer in output.state]
        accuracy = (output.logits.argmax(-1) == rollout.label).float().mean()
        self.sums += torch.stack([loss, ce, penalty, accuracy, lpc]).detach()
        self.updates_summed += 1
        self.update += 1

    def _dropout_noise(self) -> list[Tensor]:
        if not self.config.get("expert_dropout"):
            return []
        shape = (self.config["unroll_len"], self.config["num_envs"])
        sizes = self.agent.expert_hidden_sizes
        return [torch.rand(*shape, len(layer), generator=self.noise).to(self.device) for layer in sizes]

    def _dropout_rule(self, noise: list[Tensor]):
        if not noise:
            return None
        probability, threshold = self.config["expert_dropout"], self.config["expert_dropout_threshold"]
        return lambda layer, routing: drop_experts(routing, noise[layer].reshape(routing.shape), probability, threshold)

    def metrics(self, seconds: float, since_update: int) -> dict[str, float]:
        """Return the row of metrics.csv for the updates since the last one, and begin the next.

        Raises:
            UserError: the loss is no longer a number.
        """
        means = dict(zip(MEANS, (self.sums / self.updates_summed).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            raise UserError(f"the loss became {means['loss']} by update {self.update}: try a smaller lr")
        if not self.agent.expert_hidden_sizes:
            means["mean_lpc"] = math.nan
        env_steps = (self.update - since_update) * self.config["num_envs"] * self.config["unroll_len"]
        row = {
            "update": self.update,
            "env_steps": self.env_steps,
            **means,
            **self.episodes.row(),
            "bot_plan_failures": int(self.infos["bot_plan_failures"].sum()),
            "lr": learning_rate(self.update - 1, self.config),
            "steps_per_second": env_steps / seconds,
        }
        self.sums.zero_()
        self.updates_summed = 0
        self.episodes.clear()
        return row

    def checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint file holds: the policy (design, section 6), and the state that resuming needs."""
        return {
            "policy_state_dict": self.agent.policy.state_dict(),
            "config": self.config,
            "lang_proj_state_dict": self.agent.lang_proj.state_dict(),
            "resume_state": {
                "update": self.update,
                "optimizer": self.optimizer.state_dict(),
                "noise": self.noise.get_state(),
                "env": {name: torch.from_numpy(array) for name, array in self.env.get_state().items()},
                "policy_state": self.policy_state,
                "keep": torch.from_numpy(self.keep),
                "missions": list(self.agent.missions.numbers),
                "sums": self.sums,
                "updates_summed": self.updates_summed,
                "episode_steps": torch.from_numpy(self.episodes.steps),
                "episodes": [self.episodes.episodes, self.episodes.successes, self.episodes.path_ratios],
            },
        }

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on from a checkpoint as if the run had not stopped."""
        self.agent.policy.load_state_dict(checkpoint["policy_state_dict"])
        self.agent.lang_proj.load_state_dict(checkpoint["lang_proj_state_dict"])
        saved = checkpoint["resume_state"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.noise.set_state(saved["noise"])
        self.observations, self.infos = self.env.set_state({name: t.numpy() for name, t in saved["env"].items()})
        self.policy_state = [layer.to(self.device) for layer in saved["policy_state"]]
        self.keep = saved["keep"].numpy()
        self.agent.missions.lookup(saved["missions"])  # the numbers they had, so that sums keep their order
        self.sums = saved["sums"].to(self.device)
        self.updates_summed = saved["updates_summed"]
        self.episodes.steps = saved["episode_steps"].numpy()
        self.episodes.episodes, self.episodes.successes, self.episodes.path_ratios = saved["episodes"]
        self.update = saved["update"]


class MetricsFile:
    """metrics.csv beside the checkpoints, and Weights & Biases where that is wanted and installed."""

    def __init__(self, config: Mapping[str, Any], folder: Path, since_update: int):
        self.path = folder / paths.METRICS_FILE
        self.rows = []
        if since_update > 0 and self.path.exists():
            rows = tables.read_metrics(self.path).to_dict("records")
            self.rows = [row for row in rows if row["update"] <= since_update]
        self.wandb = None
        if config["wandb_project"] is not None:
            try:
                import wandb
            except ImportError:
                warn(f"not logging to wandb_project {config['wandb_project']!r}: the package wandb is not installed")
            else:
                self.wandb = wandb.init(project=config["wandb_project"], name=str(folder), config=dict(config))

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        tables.write_metrics(self.path, self.rows)
        if self.wandb is not None:
            self.wandb.log(row, step=row["update"])

    def close(self) -> None:
        if self.wandb is not None:
            self.wandb.finish()


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """While inside, Ctrl-C and SIGTERM are noted in the list that this yields; a second one acts as usual."""
    received: list[int] = []

    def note(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def last_checkpoint(config: Mapping[str, Any]) -> paths.CheckpointRef | None:
    """Return the furthest checkpoint of the run that `config` describes, if there is one."""
    task, trial, seed = config["task_id"], config["trial"], config["seed"]
    found = paths.find_checkpoints([config["checkpoint_dir"]], task=task, trial=trial)
    return next((ref for ref in reversed(found) if ref.seed == seed), None)


def resumed_config(config: dict[str, Any], given: Iterable[str], checkpoint: dict, path: Path) -> dict[str, Any]:
    """Return the config to resume a run with: its own, and of the keys now `given` those that may change.

    Raises:
        UserError: a key is given another value than the run was started with.
    """
    saved = legacy_config(checkpoint["config"])
    if "resume_state" not in checkpoint:
        raise UserError(f"{path} holds no state to resume from; start another trial, or --overwrite this one")
    if ("expert_hidden_sizes" in saved) != ("expert_hidden_sizes" in config):
        raise UserError(f"{path} holds the other kind of policy: resume it with the script that started it")
    changed = [
        f"{name} {saved[name]!r} (now {config[name]!r})"
        for name in given
        if name in saved and saved[name] != config[name] and name not in RESUMABLE_KEYS
    ]
    if changed:
        raise UserError(f"{path} was started with {', '.join(changed)}: resume with the same, or start another trial")
    return config | saved | {name: config[name] for name in given}


def open_run(config: dict[str, Any], given: Iterable[str], resume: bool, overwrite: bool) -> tuple[dict, dict | None]:
    """Decide what becomes of the run's folder.

    Returns:
        the config to train with, and the checkpoint to go on from (None: from the start).

    Raises:
        UserError: there is something that must not be lost, or nothing that could be resumed.
    """
    folder = paths.run_dir(config["checkpoint_dir"], config["task_id"], config["trial"], config["seed"])
    last = last_checkpoint(config)
    if resume:
        if last is None:
            raise UserError(f"{folder} holds no checkpoint to resume from; leave --resume out to start there")
        checkpoint = checkpoints.load_checkpoint(last.path)
        config = resumed_config(config, given, checkpoint, last.path)
        if checkpoint["resume_state"]["update"] >= config["num_updates"]:
            raise UserError(f"{last.path} is finished after {config['num_updates']} updates; nothing to resume")
        return config, checkpoint
    if last is not None and not overwrite:
        state, hint = ("a finished", "") if last.update is None else ("an unfinished", "--resume it, ")
        raise UserError(f"{folder} holds {state} run: {hint}choose another --trial or --seed, or --overwrite it")
    if folder.exists() and overwrite:
        for name in [*folder.glob("checkpoint_*.pt"), folder / paths.METRICS_FILE]:
            name.unlink(missing_ok=True)
    return config, None


def train(config: dict[str, Any], given: Iterable[str] = (), resume: bool = False, overwrite: bool = False) -> int:
    """Train one policy and return the exit status: 0 when finished, 130 or 143 when stopped by a signal.

    Args:
        config: see `Learner`.
        given: the keys that the user set, which a resumed run must not contradict.
        resume: go on with the unfinished run in this config's folder.
        overwrite: begin anew where a run exists.

    Raises:
        UserError: bad input, see `open_run` and `Learner`.
    """
    config, checkpoint = open_run(config, given, resume, overwrite)
    folder = paths.run_dir(config["checkpoint_dir"], config["task_id"], config["trial"], config["seed"])
    check_writable(folder)
    with stop_requests() as stops:
        learner = Learner(config)
        if checkpoint is None:
            learner.start()
        else:
            learner.resume(checkpoint)
        log = MetricsFile(learner.config, folder, learner.update)
        logged_at, logged_update = time.perf_counter(), learner.update
        progress = tqdm(
            total=config["num_updates"],
            initial=learner.update,
            unit="update",
            desc=config["task_id"],
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10.0,  # a log file needs fewer lines than a screen
        )
        while learner.update < config["num_updates"] and not stops:
            learner.learn(learner.collect())
            progress.update()

            if learner.update % config["log_interval"] == 0 or learner.update == config["num_updates"]:
                row = learner.metrics(time.perf_counter() - logged_at, logged_update)
                logged_at, logged_update = time.perf_counter(), learner.update
                log.add(row)
                progress.set_postfix_str(" ".join(f"{name} {row[name]:.4g}" for name in SHOWN))
            if learner.update % config["checkpoint_interval"] == 0 and learner.update < config["num_updates"]:
                checkpoints.save_checkpoint(folder / f"checkpoint_{learner.update}.pt", learner.checkpoint())
        progress.close()
        log.close()
        finished = learner.update == config["num_updates"]
        path = folder / f"checkpoint_{'final' if finished else learner.update}.pt"
        checkpoints.save_checkpoint(path, learner.checkpoint())
        learner.missions_ahead.close()
        learner.env.close()
    if finished:
        print(f"saved {path}")
        return 0
    print(f"stopped at update {learner.update}, saved {path}; the same command with --resume goes on from there")
    return 128 + stops[0]


def check_writable(folder: Path) -> None:
    """Raise a UserError unless files can be written to `folder`, so that no training is lost for want of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}. Choose another --checkpoint_dir") from None


def train_from_command_line(description: str, without: Iterable[str]) -> int:
    """Read the command line of train.py or train_mop.py, and train.

    Args:
        without: the keys of config.yaml that belong to the other script.
    """
    parser = config_parser(description, without)
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run in this folder")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where a run exists already")
    arguments = parser.parse_args()
    if arguments.resume and arguments.overwrite:
        raise UserError("--resume and --overwrite contradict each other")
    config, given = parse_config(arguments, without)
    return train(config, given, arguments.resume, arguments.overwrite)
