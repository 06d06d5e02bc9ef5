"""The mixture-of-experts policy: layers of experts of different size, and in each layer a router that weighs them.

This is the definition, in plain PyTorch: whatever is an expert or a router by the interface of `Expert` and `Router`
can take their place (docs/extending.md). On the CPU, policies that are made of the parts in this file run compiled
(`policy.compiled`), equal to the definition by test.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from policy.input import InputProjection
from policy.recurrent_policy import PolicyOutput, RecurrentPolicy, RoutingRule


class Expert(nn.Module):
    """hidden_size 0: the identity, without parameters; else GRU(size, hidden_size) -> Linear(hidden_size, size).

    Attributes:
        state_size: how many numbers of state an agent has.
        cost: what using this expert costs, for the LPC.
    """

    def __init__(self, size: int, hidden_size: int):
        super().__init__()
        self.state_size = hidden_size
        self.cost = float(hidden_size**2)
        if hidden_size > 0:
            self.gru = nn.GRU(size, hidden_size)
            self.projection = nn.Linear(hidden_size, size)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs [B, size], state [B, state_size] -> output [B, size], state [B, state_size]."""
        if self.state_size == 0:
            return inputs, state
        _, state = self.gru(inputs[None], state[None])
        return self.projection(state[0]), state[0]


class Router(nn.Module):
    """GRU(size, hidden_size) -> Linear -> softmax over the experts.

    Attributes:
        state_size: how many numbers of state an agent has.
    """

    def __init__(self, size: int, hidden_size: int, num_experts: int):
        super().__init__()
        self.state_size = hidden_size
        self.gru = nn.GRU(size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_experts)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs [B, size], state [B, state_size] -> weights [B, num_experts], state [B, state_size]."""
        _, state = self.gru(inputs[None], state[None])
        return self.fc(state[0]).softmax(-1), state[0]


class MoELayer(nn.Module):
    """A router and its experts.

    Args:
        router, experts: a Router and Experts, or modules with their interface.
        normalize: whether all of them, the identity too, read the layer's input with mean 0 and variance 1
            (`torch.nn.functional.layer_norm`, without weights).

    Attributes:
        state_sizes: of the parts of the layer's state, side by side: the router's first, then each expert's.
        expert_costs: what using each expert costs.
    """

    def __init__(self, router: Router, experts: Sequence[Expert], normalize: bool = False):
        super().__init__()
        self.normalize = normalize
        self.router = router
        self.experts = nn.ModuleList(experts)
        self.state_sizes = [router.state_size, *(expert.state_size for expert in experts)]
        self.expert_costs = [expert.cost for expert in experts]

    def forward(
        self, inputs: Tensor, state: Tensor, rule: RoutingRule | None = None, layer: int = 0, t: int = 0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run one timestep.

        Args:
            inputs: [B, size].
            state: [B, sum of state_sizes].
            rule, layer, t: see `RoutingRule`.

        Returns:
            output [B, size], state, the router's weights [B, E], and the weights used [B, E].
        """
        if self.normalize:
            inputs = nn.functional.layer_norm(inputs, inputs.shape[-1:])
        parts = [part.contiguous() for part in state.split(self.state_sizes, dim=-1)]  # as a GPU's GRUs need them
        router_state, *expert_states = parts
        routing, router_state = self.router(inputs, router_state)
        used = routing if rule is None else rule(layer, routing, t)
        results = [expert(inputs, state) for expert, state in zip(self.experts, expert_states, strict=True)]
        weighted: list[Tensor] = [used[:, e, None] * result for e, (result, _) in enumerate(results)]
        output = sum(weighted[1:], weighted[0])
        return output, torch.cat([router_state, *(state for _, state in results)], dim=-1), routing, used


class MixtureOfExpertsPolicy(RecurrentPolicy):
    """Observation and mission -> `input_projection` -> mixture layers -> `head` -> action logits, and
    `value_head` -> value where it is wanted.

    Args:
        expert_hidden_sizes: per layer, its experts' hidden sizes; a flat list means one layer; 0 is the identity.
        router_hidden_size, intermediate_dim, lang_dim: sizes of the routers, of what flows between layers, and of the
            projected mission.
        obs_encoding, lang_fusion, parsed, match_keys: see `policy.input`.
        expert, router: what experts and routers are, or classes with their interface; an expert of size 0 is always
            the identity.
        normalize_layers: whether layers normalise what they read (`MoELayer`).
        value_head: whether there is one.
    """

    def __init__(
        self,
        expert_hidden_sizes: Sequence,
        router_hidden_size: int,
        intermediate_dim: int,
        lang_dim: int,
        num_actions: int,
        obs_encoding: str,
        lang_fusion: str,
        parsed: bool = False,
        match_keys: bool = False,
        expert: type[Expert] = Expert,
        router: type[Router] = Router,
        normalize_layers: bool = False,
        value_head: bool = False,
    ):
        super().__init__()
        self.expert_hidden_sizes = per_layer(expert_hidden_sizes)
        self.input_projection = InputProjection(
            obs_encoding, lang_dim, lang_fusion, intermediate_dim, parsed, match_keys
        )
        layers = [
            MoELayer(
                router(intermediate_dim, router_hidden_size, len(sizes)),
                [(expert if size > 0 else Expert)(intermediate_dim, size) for size in sizes],
                normalize_layers,
            )
            for sizes in self.expert_hidden_sizes
        ]
        self.moe_layers = nn.ModuleList(layers)
        self.head = nn.Linear(intermediate_dim, num_actions)
        if value_head:
            self.value_head = nn.Linear(intermediate_dim, 1)
        self.state_sizes = [*self.input_projection.state_sizes, *(sum(layer.state_sizes) for layer in layers)]
        self.expert_costs = [layer.expert_costs for layer in layers]

    def forward(
        self, observation: Tensor, language: Tensor, state: list[Tensor], rule: RoutingRule | None = None, t: int = 0
    ) -> PolicyOutput:
        """Run one timestep, see `RecurrentPolicy.forward`."""
        first = len(self.input_projection.state_sizes)
        hidden, due, input_state = self.input_projection(observation, language, state[:first])
        results = []
        for index, (layer, layer_state) in enumerate(zip(self.moe_layers, state[first:], strict=True)):
            hidden, *result = layer(hidden, layer_state, rule, index, t)
            results.append(result)
        after, routing, used_routing = map(list, zip(*results, strict=True))
        value = self.value_of(hidden)
        return PolicyOutput(self.head(hidden), [*input_state, *after], routing, used_routing, due, value)


def per_layer(expert_hidden_sizes: Sequence) -> list[list[int]]:
    """Return one list of expert sizes per layer; a flat list such as [0, 16, 32] means one layer."""
    if all(isinstance(size, int) for size in expert_hidden_sizes):
        return [list(expert_hidden_sizes)]
    return [list(layer) for layer in expert_hidden_sizes]


def compute_lpc(routing: Sequence[Tensor], expert_costs: Sequence[Sequence[float]]) -> Tensor:
    """Layered Parameter Cost: sum over layers and experts of router weight * cost, a GRU's being hidden_size**2.

    Args:
        routing: one tensor of router weights [..., E] per layer.
        expert_costs: per layer, its experts' costs (`MixtureOfExpertsPolicy.expert_costs`).

    Returns:
        [...], one number per agent and timestep.

    Source: Cook, Akarca, Costa, Achterberg, NeurIPS 2025, arXiv 2506.02813.
    """
    # Summed expert by expert: a sum over a dimension would take the order of the processor's vectors.
    products = [
        weight * cost
        for weights, costs in zip(routing, expert_costs, strict=True)
        for weight, cost in zip(weights.unbind(-1), costs, strict=True)
        if cost
    ]
    return sum(products[1:], products[0]) if products else torch.zeros_like(routing[0][..., 0])


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
    kept = routing.masked_fill(dropped, 0.0).unbind(-1)
    total = sum(kept[1:], kept[0])  # expert by expert, as in `compute_lpc`
    return torch.stack([weight / total for weight in kept], dim=-1)
