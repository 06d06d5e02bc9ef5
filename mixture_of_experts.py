"""The mixture-of-experts policy: layers of experts of different size, and in each layer a router that weighs them.

`forward` of `Expert`, `Router` and `MoELayer` is the definition, one timestep at a time. `unroll` computes the same for
whole sequences with a fraction of the tensor operations; training and evaluation use it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gru import Activations, JoinedGRUs, join_grus, unroll_grus
from policy_input import InputProjection

RoutingRule = Callable[[int, Tensor], Tensor]
"""(layer index, router weights [..., E]) -> the weights to use instead, [..., E]."""


def per_layer(expert_hidden_sizes: Sequence) -> list[list[int]]:
    """Return one list of expert sizes per layer; a flat list such as [0, 16, 32] means one layer."""
    if all(isinstance(size, int) for size in expert_hidden_sizes):
        return [list(expert_hidden_sizes)]
    return [list(layer) for layer in expert_hidden_sizes]


def compute_lpc(routing: Sequence[Tensor], expert_hidden_sizes: Sequence) -> Tensor:
    """Layered Parameter Cost: sum over layers and experts of router weight * expert_hidden_size**2.

    Args:
        routing: one tensor of router weights [..., E] per layer.
        expert_hidden_sizes: per layer, its experts' hidden sizes.

    Returns:
        [...], one number per agent and timestep.

    Source: Cook, Akarca, Costa, Achterberg, NeurIPS 2025, arXiv 2506.02813.
    """
    cost = 0.0
    for weights, sizes in zip(routing, per_layer(expert_hidden_sizes), strict=True):
        cost = cost + weights @ weights.new_tensor(sizes).square()
    return cost


def drop_experts(routing: Tensor, noise: Tensor, probability: float, threshold: float) -> Tensor:
    """Drop little-used experts at random and renormalise the others (eq. 3 of arXiv 2506.02813).

    An expert whose weight w is below `threshold` is dropped with probability `probability * (1 - w / threshold)`. The
    expert with the largest weight always stays.

    Args:
        routing: router weights [..., E].
        noise: uniform in [0, 1), [..., E].
    """
    dropped = noise < probability * (1 - routing / threshold)
    dropped = dropped & (routing < routing.amax(-1, keepdim=True))
    kept = routing.masked_fill(dropped, 0.0)
    return kept / kept.sum(-1, keepdim=True)


class Expert(nn.Module):
    """hidden_size 0: the identity, without parameters; else GRU(size, hidden_size) -> Linear(hidden_size, size)."""

    def __init__(self, size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        if hidden_size > 0:
            self.gru = nn.GRU(size, hidden_size)
            self.projection = nn.Linear(hidden_size, size)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs [B, size], state [B, hidden_size] -> output [B, size], state [B, hidden_size]."""
        if self.hidden_size == 0:
            return inputs, state
        _, state = self.gru(inputs[None], state[None])
        return self.projection(state[0]), state[0]


class Router(nn.Module):
    """GRU(size, hidden_size) -> Linear -> softmax over the experts."""

    def __init__(self, size: int, hidden_size: int, num_experts: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.gru = nn.GRU(size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_experts)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs [B, size], state [B, hidden_size] -> weights [B, num_experts], state [B, hidden_size]."""
        _, state = self.gru(inputs[None], state[None])
        return self.fc(state[0]).softmax(-1), state[0]


class JoinedLayer(NamedTuple):
    """A layer's weights side by side: its router first, then its experts.

    Attributes:
        grus: of all R router and H expert hidden units.
        mix: [H + E, size], every expert's projection, then every expert's bias (zeros for the identity).
    """

    grus: JoinedGRUs
    mix: Tensor


class MoELayer(nn.Module):
    """A router and its experts. The layer's state holds the router's hidden units first, then each expert's."""

    def __init__(self, size: int, expert_hidden_sizes: Sequence[int], router_hidden_size: int):
        super().__init__()
        self.router = Router(size, router_hidden_size, len(expert_hidden_sizes))
        self.experts = nn.ModuleList(Expert(size, hidden_size) for hidden_size in expert_hidden_sizes)
        self.state_sizes = [router_hidden_size, *expert_hidden_sizes]
        self.state_size = sum(self.state_sizes)
        sizes = torch.tensor(expert_hidden_sizes)
        units = torch.arange(len(sizes)).repeat_interleave(sizes)
        self.register_buffer("units_of_expert", nn.functional.one_hot(units, len(sizes)).t().float(), persistent=False)
        self.register_buffer("is_identity", (sizes == 0).float(), persistent=False)

    def forward(
        self, inputs: Tensor, state: Tensor, rule: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One timestep, by the definition: inputs [B, size] -> output [B, size], state, router weights [B, E]."""
        router_state, *expert_states = state.split(self.state_sizes, dim=-1)
        routing, router_state = self.router(inputs, router_state)
        used = routing if rule is None else rule(routing)
        results = [expert(inputs, state) for expert, state in zip(self.experts, expert_states, strict=True)]
        output = sum(used[:, i, None] * result for i, (result, _) in enumerate(results))
        return output, torch.cat([router_state, *(state for _, state in results)], dim=-1), routing

    def join(self) -> JoinedLayer:
        """Return the layer's weights in the form that `unroll` reads; join them once for many timesteps."""
        recurrent = [expert for expert in self.experts if expert.hidden_size > 0]
        bias = torch.zeros(len(self.experts), self.router.gru.input_size, device=self.is_identity.device)
        rows = [expert.projection.weight.t() for expert in recurrent]
        for index, expert in enumerate(self.experts):
            rows.append(expert.projection.bias[None] if expert.hidden_size > 0 else bias[index, None])
        return JoinedLayer(join_grus([self.router.gru, *(expert.gru for expert in recurrent)]), torch.cat(rows))

    def unroll(
        self,
        inputs: Tensor,
        state: Tensor,
        keep: Tensor,
        joined: JoinedLayer,
        rule: Callable[[Tensor], Tensor] | None = None,
        activations: Activations | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """T timesteps at once.

        Args:
            inputs: [T, B, size].
            state: [B, state_size].
            keep: [T, B], 0 where an episode begins (the state returns to zero), else 1.
            joined: from `join`.
            rule: changes the router's weights before they are used.
            activations: see `unroll_grus`.

        Returns:
            output [T, B, size], state [B, state_size], router weights [T, B, E], the weights used [T, B, E].
        """
        hidden = unroll_grus(inputs, state, keep, joined.grus, activations)
        routing = self.router.fc(hidden[..., : self.router.hidden_size]).softmax(-1)
        used = routing if rule is None else rule(routing)
        weighted = hidden[..., self.router.hidden_size :] * (used @ self.units_of_expert)
        output = torch.cat([weighted, used], dim=-1) @ joined.mix + (used @ self.is_identity)[..., None] * inputs
        return output, hidden[-1], routing, used


class PolicyOutput(NamedTuple):
    """What a policy returns for T timesteps of B agents.

    Attributes:
        logits: [T, B, num_actions].
        state: one tensor [B, state_size] per layer, after the last step.
        routing: the routers' weights, one tensor [T, B, E] per layer (none for a policy without routers).
        used_routing: the weights the experts' outputs were mixed with: `routing`, or what a rule made of it.
    """

    logits: Tensor
    state: list[Tensor]
    routing: list[Tensor]
    used_routing: list[Tensor]


class MixtureOfExpertsPolicy(nn.Module):
    """Observation and mission -> `input_projection` -> mixture layers -> `head` -> action logits.

    Args:
        expert_hidden_sizes: per layer, its experts' hidden sizes; 0 is the identity.
        router_hidden_size, intermediate_dim, lang_dim: sizes of routers' GRUs, of what flows between layers, and of the
            projected mission.
        obs_encoding, lang_fusion: see `policy_input`.
    """

    def __init__(
        self,
        expert_hidden_sizes: Sequence = ((0, 16, 32),) * 3,
        router_hidden_size: int = 64,
        intermediate_dim: int = 64,
        lang_dim: int = 32,
        num_actions: int = 7,
        obs_encoding: str = "raw",
        lang_fusion: str = "concat",
    ):
        super().__init__()
        self.expert_hidden_sizes = per_layer(expert_hidden_sizes)
        self.input_projection = InputProjection(obs_encoding, lang_dim, lang_fusion, intermediate_dim)
        self.moe_layers = nn.ModuleList(
            MoELayer(intermediate_dim, sizes, router_hidden_size) for sizes in self.expert_hidden_sizes
        )
        self.head = nn.Linear(intermediate_dim, num_actions)

    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the state in which every episode begins: zeros, [batch, state_size] per layer."""
        return [self.head.weight.new_zeros(batch, layer.state_size) for layer in self.moe_layers]

    def empty_activations(self, steps: int, batch: int) -> list[Activations]:
        """Return room for what a rollout computes, so that the unroll that learns from it need not do it again."""
        like = self.head.weight
        return [Activations.empty(steps, batch, layer.state_size, like) for layer in self.moe_layers]

    def join(self) -> list[JoinedLayer]:
        """Return all layers' weights in the form that `unroll` reads."""
        return [layer.join() for layer in self.moe_layers]

    def unroll(
        self,
        observation: Tensor,
        language: Tensor,
        state: list[Tensor],
        keep: Tensor,
        joined: list[JoinedLayer] | None = None,
        rule: RoutingRule | None = None,
        activations: list[Activations] | None = None,
    ) -> PolicyOutput:
        """Run T timesteps of B agents.

        Args:
            observation: [T, B, 152] (`policy_input.observation_vector`).
            language: projected missions [T, B, lang_dim].
            state: from `initial_state` or an earlier output.
            keep: [T, B], 0 where an episode begins at that step, else 1.
            joined: from `join`, to share it between calls; it goes stale when parameters change.
            rule: changes each layer's router weights before they are used (dropout, lesions).
            activations: from `empty_activations`, see `unroll_grus`.
        """
        hidden = self.input_projection(observation, language)
        new_state, routing, used_routing = [], [], []
        for index, (layer, weights) in enumerate(zip(self.moe_layers, joined or self.join(), strict=True)):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed)
            kept = None if activations is None else activations[index]
            hidden, layer_state, routed, used = layer.unroll(hidden, state[index], keep, weights, layer_rule, kept)
            new_state.append(layer_state)
            routing.append(routed)
            used_routing.append(used)
        return PolicyOutput(self.head(hidden), new_state, routing, used_routing)

    def forward(
        self, observation: Tensor, language: Tensor, state: list[Tensor], rule: RoutingRule | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """One timestep, by the definition: observation [B, 152] -> logits [B, A], state, router weights per layer."""
        hidden = self.input_projection(observation, language)
        new_state, routing = [], []
        for index, layer in enumerate(self.moe_layers):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed)
            hidden, layer_state, routed = layer(hidden, state[index], layer_rule)
            new_state.append(layer_state)
            routing.append(routed)
        return self.head(hidden), new_state, routing


def reset_state(state: list[Tensor], done: Tensor) -> list[Tensor]:
    """Return `state` with the hidden states of agents whose episode ended (`done` bool [B]) set to zero."""
    return [layer.masked_fill(done[:, None], 0.0) for layer in state]
