"""What training is, whatever the student learns from.

`num_updates` times it walks `unroll_len` steps in `num_envs` environments (`Trainer.collect`), and then learns from
them (`learn`): from what the BabyAI bot would have done in `training/imitation.py`, from reward in `training/ppo.py`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basics.config import tasks_of
from basics.errors import UserError
from fast_babyai.factory import make_vec_env, sample_missions
from fast_babyai.rules import NUM_ACTIONS
from mixture_of_experts import compute_lpc
from policy.agent import Agent, choose_device, make_encoder
from policy.compiled.adam import Adam
from policy.compiled.operations import sample
from policy.observation import OBSERVATION_SIZE, observation_vector
from policy.recurrent_policy import PolicyOutput, stacked
from policy.repetition import Repetitions
from training.init_from import begin_with
from training.missions_ahead import MissionsAhead
from training.rollout import EpisodeStatistics, ExpertDropout, Rollout, TaskStatistics

FIRST_SUMS = ("loss", "ce", "penalty", "accuracy", "mean_lpc")  # what older checkpoints summed, by place


def learning_rate(update: int, config: Mapping[str, Any]) -> float:
    """Return the learning rate of update 0 .. num_updates - 1."""
    progress = update / config["num_updates"]
    factor = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + _cosine(math.pi * progress))}
    return config["lr"] * factor[config["lr_schedule"]]


def _cosine(x: float) -> float:
    """Return cos(x) for x in [0, pi] by its series: the C library's differs between processors in the last digit."""
    total, term = 1.0, 1.0
    for n in range(2, 40, 2):
        term *= -x * x / (n * (n - 1))
        total += term
    return total


def walked_alone(num_envs: int, bot_share: float) -> np.ndarray:
    """Return in which environments every step is the student's, bool [num_envs]: one in eight, but at least one; all
    where the bot takes no steps."""
    return np.arange(num_envs) < (max(1, num_envs // 8) if bot_share > 0 else num_envs)


class Trainer:
    """All that a training run carries from one update to the next.

    Args:
        config: every key of config.yaml that concerns this kind of policy.
    """

    bot_share = 0.0  # of steps that the bot takes in the student's place
    temperature = 1.0  # of the policy from which the student's steps are sampled
    repetition_penalty = 0.0  # by which they are kept from repeating themselves

    def __init__(self, config: dict[str, Any]):
        self.device = choose_device(config["device"])
        torch.set_num_threads(config["num_threads"])
        self.seed = config["trial"] if config["seed"] is None else config["seed"]
        torch.manual_seed(self.seed)
        encoder = make_encoder(config["lang_encoder"], config["lang_fallback"])
        self.config = config | {"lang_encoder": encoder.name, "num_actions": NUM_ACTIONS}
        self.agent = Agent(self.config, encoder, self.device)
        self.config["input_dim"] = self.agent.policy.input_projection.encoder.size
        self.config["lang_dim"] = self.agent.lang_dim
        missions = sample_missions(tasks_of(config), backend=config["backend"])
        self.agent.begin_projection(missions, config["train_lang_proj"])
        self.optimizer = self.new_optimizer()
        self.noise = torch.Generator().manual_seed(self.seed)
        self.env = make_vec_env(
            tasks_of(config),
            config["num_envs"],
            backend=config["backend"],
            max_steps=config["max_steps"],
            train_levels=config["train_levels"],
            task_weights=config["task_weights"],
        )
        order = (self.seed, config["train_levels"])
        self.missions_ahead = MissionsAhead(encoder.name, self.env, *order, config["num_threads"])
        self.policy_state = self.agent.policy.initial_state(config["num_envs"])
        self.not_done = np.zeros(config["num_envs"], np.float32)
        self.repetitions = Repetitions(config["num_envs"], self.repetition_penalty)
        self.alone = walked_alone(config["num_envs"], self.bot_share)
        self.episodes = EpisodeStatistics(self.alone)
        self.by_task = TaskStatistics(self.env.tasks, self.env.task_of_env, self.alone) if config["tasks"] else None
        self.update = 0
        self.sums: dict[str, Tensor] = {}  # of what the losses measured, over the updates since the last row of metrics
        self.updates_summed = 0

    def new_optimizer(self) -> Adam:
        """Return an optimizer of all that is trained, which has made no step yet."""
        return Adam(self._parameter_groups(), lr=self.config["lr"])

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return what the optimizer trains, each group with the factor by which its learning rate differs from lr."""
        trained = {name: p for name, p in self.agent.named_parameters() if p.requires_grad}
        slow = [parameter for name, parameter in trained.items() if ".router." in name]
        rest = [parameter for name, parameter in trained.items() if ".router." not in name]
        groups = [{"params": rest, "lr_factor": 1.0}]
        return [*groups, {"params": slow, "lr_factor": self.config["router_lr_factor"]}] if slow else groups

    def start(self) -> None:
        """Begin the first episodes, with the weights of the checkpoint `init_from` where one is named.

        Raises:
            UserError: it cannot be begun with.
        """
        if self.config["init_from"] is not None:
            begin_with(self.config["init_from"], self.agent, self.config)
        self.observations, self.infos = self.env.reset(seed=self.seed)

    @property
    def env_steps(self) -> int:
        return self.update * self.config["num_envs"] * self.config["unroll_len"]

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Walk `unroll_len` steps: the student samples its actions from its policy, and the bot takes its share."""
        steps, num_envs, agent = self.config["unroll_len"], self.config["num_envs"], self.agent
        self.missions_ahead.reached(self.env.next_episode, agent.missions.forget_many())
        observation = np.zeros((steps, num_envs, OBSERVATION_SIZE), np.uint8)
        not_done = np.zeros((steps, num_envs), np.float32)
        label, due, mission, action = np.zeros((4, steps, num_envs), np.int64)
        reward, outputs = np.zeros((steps, num_envs), np.float32), []
        penalty = np.zeros((steps, num_envs, NUM_ACTIONS), np.float32)
        walked = [torch.from_numpy(array) for array in (observation, mission, not_done)]
        uniform = torch.rand(steps, num_envs, generator=self.noise).numpy()
        bot_walks = torch.rand(steps, num_envs, generator=self.noise).numpy() < self.bot_share
        bot_walks &= ~self.alone
        rule = self._expert_dropout()
        policy = agent.fast_policy.pack(steps, num_envs)
        missions = agent.mission_features(policy)
        mission_row = missions.rows(agent.missions.lookup(self.infos["mission"]))
        before = state = self.policy_state
        for t in range(steps):
            observation[t], mission[t], not_done[t] = observation_vector(self.observations), mission_row, self.not_done
            label[t], due[t] = self.infos["bot_action"], self.infos["due_action"]
            seen, told, going_on = (tensor[t].to(self.device) for tensor in walked)
            output = policy.step(t, seen, missions.features, told, state, going_on, rule)
            state = output.state
            penalty[t] = self.repetitions.penalties(self.observations, self.infos["agent_pos"], self.not_done == 0)
            outputs.append(output._replace(logits=output.logits - torch.from_numpy(penalty[t]).to(self.device)))
            action[t] = np.where(bot_walks[t], label[t], sample(outputs[t].logits / self.temperature, uniform[t]))
            self.repetitions.note(action[t])
            bot_steps = self.infos["bot_steps"]
            self.observations, reward[t], terminated, truncated, self.infos = self.env.step(action[t])
            done = terminated | truncated
            self.episodes.add(reward[t], done, bot_steps)
            if self.by_task is not None:
                self.by_task.add_episodes(reward[t], done)
            self.not_done = (~done).astype(np.float32)
            if done.any():
                began = np.flatnonzero(done)
                mission_row[began] = missions.rows(agent.missions.lookup(self.infos["mission"][began]))
        self.policy_state = [layer.clone() for layer in state]  # the next steps overwrite it
        seen, told, going_on = (tensor.to(self.device) for tensor in walked)
        labels, due_labels, penalties, actions, rewards = (
            torch.from_numpy(array).to(self.device) for array in (label, due, penalty, action, reward)
        )
        heads = (torch.stack([output.logits for output in outputs]), stacked([output.value for output in outputs]))
        walk = (seen, missions, told, going_on, labels, due_labels, penalties, *heads, actions, rewards)
        return Rollout(*walk, before, rule, policy, self.env.task_of_env)

    def learn(self, rollout: Rollout) -> None:
        """Learn from a rollout: one update."""
        raise NotImplementedError

    def gradient_step(self, loss: Tensor, part: nn.Module | None = None) -> None:
        """Make one step of the optimizer down the gradient of `loss`, at this update's learning rate; with `part`, of
        its parameters alone."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_factor"] * learning_rate(self.update, self.config)
        self.optimizer.zero_grad()
        loss.backward(inputs=None if part is None else list(part.parameters()))
        self.optimizer.step(self.config["max_grad_norm"])

    def note(self, measured: Mapping[str, Tensor]) -> None:
        """Add what was measured in one gradient step to the next row of metrics."""
        self.sums = {name: value.detach() + self.sums.get(name, 0.0) for name, value in measured.items()}
        self.updates_summed += 1

    def note_tasks(self, output: PolicyOutput, label: Tensor) -> None:
        """Add the steps of a rollout, as the policy that walked it sees them, to the next rows of metrics_by_task."""
        if self.by_task is not None:
            lpc = torch.full(label.shape, math.nan)
            if output.routing:
                lpc = compute_lpc([layer.detach() for layer in output.routing], self.agent.policy.expert_costs)
            self.by_task.add_steps(output.logits, label, lpc)

    def _expert_dropout(self) -> ExpertDropout | None:
        """Return the expert dropout of the next rollout, None without any."""
        if not self.config.get("expert_dropout"):
            return None
        shape = (self.config["unroll_len"], self.config["num_envs"])
        sizes = [len(layer) for layer in self.agent.policy.expert_costs]
        noise = [torch.rand(*shape, size, generator=self.noise).to(self.device) for size in sizes]
        return ExpertDropout(noise, self.config["expert_dropout"], self.config["expert_dropout_threshold"])

    def metrics(self, seconds: float, since_update: int) -> dict[str, float]:
        """Return the row of metrics.csv for the updates since the last one, and begin the next.

        Raises:
            UserError: the loss is no longer a number.
        """
        means = {name: (total / self.updates_summed).item() for name, total in self.sums.items()}
        if not math.isfinite(means["loss"]):
            raise UserError(f"the loss became {means['loss']} by update {self.update}: try a smaller lr")
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
        self.sums = {}
        self.updates_summed = 0
        self.episodes.clear()
        return row

    def metrics_by_task(self) -> list[dict[str, Any]]:
        """Return the rows of metrics_by_task.csv for the updates since the last ones, and begin the next; none of a
        single task."""
        return [] if self.by_task is None else self.by_task.rows(self.update, self.update * self.config["unroll_len"])

    def checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint file holds (docs/architecture.md): the policy, and the state that resuming needs."""
        return {
            **self.agent.state_dicts(),
            "config": self.config,
            "lang_probes": torch.from_numpy(self.agent.missions.encoder.probes),
            "resume_state": {
                "update": self.update,
                "optimizer": self.optimizer.state_dict(),
                "noise": self.noise.get_state(),
                "env": {name: torch.from_numpy(array) for name, array in self.env.get_state().items()},
                "policy_state": self.policy_state,
                "keep": torch.from_numpy(self.not_done),
                "sums": self.sums,
                "updates_summed": self.updates_summed,
                "episode_steps": torch.from_numpy(self.episodes.steps),
                "episodes": [self.episodes.episodes, self.episodes.successes, self.episodes.path_ratios],
                **({} if self.by_task is None else {"by_task": self.by_task.state()}),
                **({"repetitions": self.repetitions.state()} if self.repetitions.penalty else {}),
            },
        }

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on from a checkpoint as if the run had not stopped."""
        self.agent.load_state_dicts(checkpoint)
        saved = checkpoint["resume_state"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.noise.set_state(saved["noise"])
        self.observations, self.infos = self.env.set_state({name: t.numpy() for name, t in saved["env"].items()})
        self.policy_state = [layer.to(self.device) for layer in saved["policy_state"]]
        self.not_done = saved["keep"].numpy()
        if self.repetitions.penalty:
            self.repetitions.load(saved["repetitions"])
        sums = saved["sums"]
        if isinstance(sums, Tensor):
            sums = dict(zip(FIRST_SUMS, sums, strict=True))
        self.sums = {name: total.to(self.device) for name, total in sums.items()}
        self.updates_summed = saved["updates_summed"]
        self.episodes.steps = saved["episode_steps"].numpy()
        self.episodes.episodes, self.episodes.successes, self.episodes.path_ratios = saved["episodes"]
        if self.by_task is not None:
            self.by_task.load(saved["by_task"])
        self.update = saved["update"]
