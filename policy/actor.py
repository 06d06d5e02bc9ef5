"""A trained agent as a player in N environments."""

import numpy as np
import torch

from basics.errors import UserError
from policy.agent import Agent
from policy.compiled.operations import sample
from policy.observation import observation_vector
from policy.recurrent_policy import RoutingRule
from policy.repetition import Repetitions

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's step, 2**64 over the golden ratio


def split_mix(state: np.ndarray) -> np.ndarray:
    """Return what SplitMix64 makes of its states, uint64 [N] (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
    number generators"): whole numbers, so the same on every processor."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniform_of(level_seed: np.ndarray, timestep: np.ndarray) -> np.ndarray:
    """Return random numbers that depend on the level and the step alone, float32 [N] in [0, 1): each level has a
    SplitMix64 of its own, begun with its mixed seed."""
    stream = split_mix(level_seed.astype(np.uint64) + GOLDEN)
    number = split_mix(stream + (timestep.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return (number >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


class PolicyActor:
    """An agent's actions in N environments; what one agent does depends on no other.

    Args:
        rule: changes the routers' weights before they are used.
        sampled: draw actions from the policy, with the same random numbers in every evaluation; else greedy ones.
    """

    def __init__(self, agent: Agent, num_envs: int, rule: RoutingRule | None = None, sampled: bool = False):
        self.agent, self.rule, self.sampled = agent, rule, sampled
        self.expert_costs = agent.policy.expert_costs
        self.policy = agent.fast_policy.pack(1, num_envs)
        self.state = agent.policy.initial_state(num_envs)
        self.repetitions = Repetitions(num_envs, agent.repetition_penalty)

    @torch.no_grad()
    def act(
        self, observations: dict[str, np.ndarray], infos: dict, done_instead: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Return the agents' actions [N], their routers' weights [N, E] per layer, and the logits that they act by.

        Args:
            done_instead: what is done in place of their actions, int64 [N].
        """
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
        penalties = self.repetitions.penalties(observations, infos["agent_pos"], infos["episode_start"])
        logits = output.logits - torch.from_numpy(penalties)
        if self.sampled:
            actions = sample(logits, uniform_of(infos["level_seed"], infos["timestep"]))
        else:
            actions = logits.numpy().argmax(-1)
        self.repetitions.note(actions if done_instead is None else done_instead)
        return actions, [layer.numpy() for layer in output.used_routing], logits.numpy()
