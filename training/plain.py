"""The training loop without anything that makes it fast: read this first, then `training/trainer.py`.

It steps minigrid's environments and their bots one after the other and calls the policy by its definition at every
timestep. Both loops do the same work (rollout, labels, loss, gradient step); `benchmarks/throughput.py` lets them take
turns. There are no checkpoints and no metrics here.
"""

from collections.abc import Mapping
from typing import Any

import torch

from basics.config import tasks_of
from fast_babyai.factory import make_vec_env, sample_missions
from fast_babyai.rules import NUM_ACTIONS
from mixture_of_experts import compute_lpc
from policy.agent import Agent, make_encoder
from policy.observation import observation_vector
from training.trainer import learning_rate, walked_alone


class PlainTrainer:
    """Online imitation of the BabyAI bot, in the fewest words.

    Args:
        config: every key of config.yaml that concerns the mixture.
    """

    def __init__(self, config: Mapping[str, Any]):
        torch.manual_seed(0)
        self.config = {**config, "num_actions": NUM_ACTIONS}
        self.agent = Agent(self.config, make_encoder(config["lang_encoder"], config["lang_fallback"]))
        self.agent.begin_projection(sample_missions(tasks_of(config)), config["train_lang_proj"])
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=config["lr"])
        self.env = make_vec_env(
            tasks_of(config), config["num_envs"], backend="minigrid", train_levels=config["train_levels"]
        )
        alone = walked_alone(config["num_envs"], config["bot_share"])
        self.alone = torch.from_numpy(alone)  # environments in which every step is the student's
        self.observations, self.infos = self.env.reset(seed=0)
        self.state = self.agent.policy.initial_state(config["num_envs"])
        self.updates = 0

    def update(self) -> float:
        """Walk `unroll_len` steps, learn from them, and return the loss."""
        loss = torch.zeros(())
        for _ in range(self.config["unroll_len"]):
            # What the policy makes of what it sees and is told
            language = self.agent.project(self.agent.missions.lookup(self.infos["mission"]))
            observation = torch.from_numpy(observation_vector(self.observations))
            output = self.agent.policy(observation, language, self.state)

            # What it should have done, and what its pathways cost
            label = torch.from_numpy(self.infos["bot_action"])
            lpc = compute_lpc(output.routing, self.agent.policy.expert_costs).mean()
            loss = loss + torch.nn.functional.cross_entropy(output.logits, label) + self.config["lpc_alpha"] * lpc

            # The next step is the bot's with probability `bot_share`, else the student's
            actions = torch.distributions.Categorical(logits=output.logits.detach()).sample()
            bot_walks = (torch.rand(len(label)) < self.config["bot_share"]) & ~self.alone
            actions = torch.where(bot_walks, label, actions).numpy()
            self.observations, _, terminated, truncated, self.infos = self.env.step(actions)
            not_done = torch.from_numpy(~(terminated | truncated)).float()
            self.state = [layer * not_done[:, None] for layer in output.state]

        loss = loss / self.config["unroll_len"]
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.updates, self.config)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.agent.parameters(), self.config["max_grad_norm"])
        self.optimizer.step()
        self.state = [layer.detach() for layer in self.state]
        self.updates += 1
        return loss.item()
