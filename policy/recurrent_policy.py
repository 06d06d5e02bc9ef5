"""What every policy of this project is: a recurrent network from observation and mission to action logits.

`forward` runs one timestep; a policy defines it, and nothing else is needed to train, evaluate and resume it. `step`
and `unroll` are what training and evaluation call. They are written here by `forward`; `policy.compiled` has the same
methods for the policies whose every part it knows, and computes them several times faster.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from policy.input import InputProjection

RoutingRule = Callable[[int, Tensor, int | slice], Tensor]
"""rule(layer, weights, t) -> the weights to use in place of a router's: both [B, E] for timestep t of an unroll, or
both [T, B, E] for all of them at once, when t is `slice(None)`. Lesions and expert dropout are rules."""


class PolicyOutput(NamedTuple):
    """What a policy returns for B agents, of one timestep or, with a first dimension T more, of an unroll.

    Attributes:
        logits: [B, num_actions].
        state: one tensor [B, state_size] per layer, after the last timestep (never with a dimension T); the input
            projection's first, if it has one.
        routing: the routers' weights, one tensor [B, E] per layer; none for a policy without routers.
        used_routing: the weights the experts' outputs were mixed with: `routing`, or what a rule made of it.
        due: how far each of the mission's actions is due, [B, 4]; None but with `lang_fusion: matching`.
        value: [B], the reward still to come as the value head expects it; None for a policy without one.
    """

    logits: Tensor
    state: list[Tensor]
    routing: list[Tensor]
    used_routing: list[Tensor]
    due: Tensor | None = None
    value: Tensor | None = None


class RecurrentPolicy(nn.Module):
    """Base class of policies.

    Attributes:
        input_projection: what meets observation and mission first.
        state_sizes: per layer, how many numbers of state an agent has.
        expert_hidden_sizes: per layer, its experts' hidden sizes; empty for a policy without routers.
        expert_costs: per layer, the cost of each of its experts (`compute_lpc`); empty for a policy without routers.
        value_head: what says how much reward is still to come, for learning from it; None where that is not wanted.
    """

    input_projection: InputProjection
    state_sizes: Sequence[int]
    expert_hidden_sizes: Sequence[Sequence[int]] = ()
    expert_costs: Sequence[Sequence[float]] = ()

    def __init__(self):
        super().__init__()
        self.value_head: nn.Linear | None = None

    def forward(
        self, observation: Tensor, language: Tensor, state: list[Tensor], rule: RoutingRule | None = None, t: int = 0
    ) -> PolicyOutput:
        """Run one timestep.

        Args:
            observation: uint8 [B, 152] (`policy.input.observation_vector`).
            language: [B, lang_dim], the projected missions.
            state: [B, state_size] per layer.
            rule: changes the routers' weights before they are used.
            t: which timestep of an unroll this is, for the rule.
        """
        raise NotImplementedError

    def value_of(self, hidden: Tensor) -> Tensor | None:
        """What the heads read [B, size] -> the value [B], None without a value head."""
        return None if self.value_head is None else self.value_head(hidden)[:, 0]

    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the state in which every episode begins: zeros, [batch, state_size] per layer."""
        device = next(self.parameters()).device
        return [torch.zeros(batch, size, device=device) for size in self.state_sizes]

    def pack(self, steps: int, batch: int) -> "RecurrentPolicy":
        """Return what runs `steps` timesteps of `batch` agents until the weights change: by the definition, itself."""
        return self

    def mission_features(self, language: Tensor) -> tuple[Tensor, ...]:
        """Return what can be computed of M missions alone, tensors [M, ...]: by the definition, they themselves.

        Args:
            language: [M, lang_dim], the projected missions.
        """
        return (language,)

    def step(
        self,
        t: int,
        observation: Tensor,
        features: tuple[Tensor, ...],
        mission: Tensor,
        state: list[Tensor],
        not_done: Tensor,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """Run timestep t of an unroll.

        Args:
            observation: uint8 [B, 152].
            features: from `mission_features`.
            mission: int64 [B], which row of the features each agent has.
            state: [B, state_size] per layer, from `initial_state` or an earlier output.
            not_done: [B], 0 where an episode begins (its agent's state returns to zero), else 1.
            rule: changes the routers' weights before they are used.
        """
        state = [layer * not_done[:, None] for layer in state]
        return self(observation, features[0][mission], state, rule, t)

    def unroll(
        self,
        observation: Tensor,
        features: tuple[Tensor, ...],
        mission: Tensor,
        state: list[Tensor],
        not_done: Tensor,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """Run T timesteps: the arguments of `step`, all but `features` and `state` with a first dimension T more."""
        outputs = []
        for t, (seen, told, going_on) in enumerate(zip(observation, mission, not_done, strict=True)):
            outputs.append(self.step(t, seen, features, told, state, going_on, rule))
            state = outputs[-1].state
        logits = torch.stack([output.logits for output in outputs])
        routing, used_routing = (
            [torch.stack(layer) for layer in zip(*steps, strict=True)]
            for steps in ([output.routing for output in outputs], [output.used_routing for output in outputs])
        )
        due, value = stacked([output.due for output in outputs]), stacked([output.value for output in outputs])
        return PolicyOutput(logits, state, routing, used_routing, due, value)


def stacked(steps: list[Tensor | None]) -> Tensor | None:
    """Return what every step has as one tensor, None where no step has it."""
    there = [step for step in steps if step is not None]
    return torch.stack(there) if there else None
