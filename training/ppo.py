"""Learning from reward (`objective: ppo`): recurrent PPO (Schulman et al. 2017, arXiv 1707.06347).

Every step of a rollout is the student's. It is learned from `update_epochs` times: the environments are dealt at random
into `num_minibatches` parts, and each part's whole unrolls, begun in the state in which they were walked, make one
gradient step. Whoever knows CleanRL's ppo_atari_lstm.py will find it here, its constants in config.yaml.

An episode that is over time has ended like any other: nothing is to come after it. So it is for BabyAI's agents and in
CleanRL, and by BabyAI's reward: 1 - 0.9 * steps / max_steps falls until the limit, and after it there is none to come.
"""

from typing import Any

import torch
from torch import Tensor

from basics.errors import UserError
from policy.compiled.operations import log_prob_and_entropy
from policy.observation import observation_vector
from training.losses import ppo_losses
from training.rollout import Rollout
from training.trainer import Trainer


def generalized_advantages(reward: Tensor, value: Tensor, goes_on: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Return how much better each step came out than expected, [T, N] (eq. 16 of Schulman et al. 2016, arXiv
    1506.02438).

    Args:
        reward: of each step, [T, N].
        value: what was expected before each step, and after the last one, [T + 1, N].
        goes_on: 0 where the step ended the episode, else 1, [T, N].
    """
    advantage = torch.zeros_like(reward)
    later = torch.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        surprise = reward[t] + gamma * goes_on[t] * value[t + 1] - value[t]
        advantage[t] = later = surprise + gamma * gae_lambda * goes_on[t] * later
    return advantage


class PPOTrainer(Trainer):
    """See the module's docstring."""

    def __init__(self, config: dict[str, Any]):
        if config["num_envs"] % config["num_minibatches"]:
            raise UserError(
                f"num_envs is {config['num_envs']}, expected a multiple of num_minibatches, {config['num_minibatches']}"
            )
        self.repetition_penalty = config["repetition_penalty"]
        super().__init__(config)

    def learn(self, rollout: Rollout) -> None:
        """Make `update_epochs` * `num_minibatches` gradient steps on the reward of a rollout."""
        config, num_envs = self.config, self.config["num_envs"]
        if self.by_task is not None:
            with torch.no_grad():
                self.note_tasks(rollout.unroll(rollout.policy, rollout.missions), rollout.label)
        advantage, target = self._advantage_and_target(rollout)
        log_prob, _ = log_prob_and_entropy(rollout.logits, rollout.action)
        warming_up = self.update < config["value_warmup"]
        if 0 < config["value_warmup"] == self.update:
            self.optimizer = self.new_optimizer()  # the head's many steps must not count as everybody's
        for _ in range(config["update_epochs"]):
            for envs in torch.randperm(num_envs, generator=self.noise).chunk(config["num_minibatches"]):
                part = rollout.of(envs.to(self.device))
                policy = self.agent.fast_policy.pack(config["unroll_len"], len(envs))
                missions = self.agent.mission_features(policy)
                missions.rows(rollout.missions.numbers)
                output = part.unroll(policy, missions)
                chosen = (log_prob[:, envs], advantage[:, envs], target[:, envs])
                measured = ppo_losses(self.agent.policy, output, part, *chosen, config)
                if warming_up:
                    self.gradient_step(config["value_coef"] * measured["value_loss"], self.agent.policy.value_head)
                else:
                    self.gradient_step(measured["loss"])
                self.note(measured)
        self.update += 1

    @torch.no_grad()
    def _advantage_and_target(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return each step's advantage, and what its value should be: that much more than it was, [T, N] each."""
        observation = torch.from_numpy(observation_vector(self.observations)).to(self.device)
        mission = rollout.missions.rows(self.agent.missions.lookup(self.infos["mission"]))
        not_done = torch.from_numpy(self.not_done).to(self.device)
        now = (rollout.missions.features, torch.from_numpy(mission).to(self.device), self.policy_state, not_done)
        value_after = rollout.policy.step(0, observation, *now).value
        assert rollout.value is not None and value_after is not None  # `build_policy` made a value head
        advantage = generalized_advantages(
            self.config["reward_scale"] * rollout.reward,
            torch.cat([rollout.value, value_after[None]]),
            torch.cat([rollout.not_done[1:], not_done[None]]),
            self.config["gamma"],
            self.config["gae_lambda"],
        )
        return advantage, advantage + rollout.value

    def metrics(self, seconds: float, since_update: int) -> dict[str, float]:
        """See `Trainer.metrics`; also how many episodes ended."""
        episodes = {"episodes": self.episodes.episodes}
        return super().metrics(seconds, since_update) | episodes
