"""A trained agent as a player in N environments."""

import numpy as np
import torch

from basics.errors import UserError
from policy.agent import Agent
from policy.observation import observation_vector
from policy.recurrent_policy import RoutingRule


class PolicyActor:
    """An agent's greedy actions in N environments; what one agent does depends on no other."""

    def __init__(self, agent: Agent, num_envs: int, rule: RoutingRule | None = None):
        self.agent, self.rule = agent, rule
        self.expert_costs = agent.policy.expert_costs
        self.policy = agent.fast_policy.pack(1, num_envs)
        self.state = agent.policy.initial_state(num_envs)

    @torch.no_grad()
    def act(self, observations: dict[str, np.ndarray], infos: dict) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        observation = torch.from_numpy(observation_vector(observations))
        not_done = torch.from_numpy((~infos["episode_start"]).astype(np.float32))
        if infos["episode_start"].any():
            features = self.agent.mission_features(self.policy, learn=False)
            self.rows = torch.from_numpy(features.rows(self.agent.missions.lookup(infos["mission"])))
            self.features = features.features
        output = self.policy.step(0, observation, self.features, self.rows, self.state, not_done, self.rule)
        if not output.logits.isfinite().all():
            raise UserError("what this policy computes are no finite numbers: there is nothing to evaluate")
        self.state = output.state
        logits = output.logits.numpy()
        return logits.argmax(-1), [layer.numpy() for layer in output.used_routing], logits
