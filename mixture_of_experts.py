"""The mixture-of-experts policy: layers of experts of different size, and in each layer a router that weighs them.

`forward` of `Expert`, `Router`, `MoELayer` and the policy is the definition, one timestep at a time. On the CPU, `step`
and `unroll` compute the same with a fraction of the operations; training and evaluation use them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gru import Activations, JoinedGRUs, join_grus, unroll_grus
from policy_input import InputProjection, JoinedInput, Told
from policy_kernels import mix, mix_backward, route

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
        router: weight [E, R] and bias [E] of its linear map.
        projections: [H + E, size], every expert's projection, then every expert's bias (zeros for the identity).
    """

    grus: JoinedGRUs
    router: tuple[Tensor, Tensor]
    projections: Tensor


class _Mix(torch.autograd.Function):
    """inputs [T, B, size], states [T, B, R + H], weights to mix with [T, B, E], projections -> output [T, B, size]."""

    @staticmethod
    def forward(ctx, inputs, hidden, used, projections, sizes, first):
        weighted = inputs.new_empty(inputs.shape[0] * inputs.shape[1], len(projections))
        output = torch.empty_like(inputs)
        tensors = [tensor.flatten(0, 1) for tensor in (inputs, hidden, used)]
        read, states, weights, filled = (tensor.numpy() for tensor in (*tensors, output.flatten(0, 1)))
        mix(sizes, projections.numpy(), read, states, first, weights, weighted.numpy(), filled)
        ctx.save_for_backward(*tensors, weighted, projections)
        ctx.sizes, ctx.first = sizes, first
        return output

    @staticmethod
    def backward(ctx, grad_output):
        inputs, hidden, used, weighted, projections = ctx.saved_tensors
        leading, grad_output = grad_output.shape[:2], grad_output.flatten(0, 1)
        grads = [torch.empty_like(tensor) for tensor in (inputs, hidden, used)]
        grad_weighted, grad_projections = torch.empty_like(weighted), torch.empty_like(projections)
        tensors = (inputs, hidden, used, weighted, grad_output, *grads, grad_weighted, grad_projections)
        read, states, weights, *others = (tensor.numpy() for tensor in tensors)
        mix_backward(ctx.sizes, projections.numpy(), read, states, ctx.first, weights, *others)
        return *(grad.unflatten(0, leading) for grad in grads), grad_projections, None, None


def mix_in_tensor_operations(
    inputs: Tensor, hidden: Tensor, used: Tensor, projections: Tensor, sizes: np.ndarray, first: int
) -> Tensor:
    """What `_Mix` computes, for devices that compiled functions do not run on."""
    sizes = torch.from_numpy(sizes).to(inputs.device)
    of_units = used.repeat_interleave(sizes, dim=-1, output_size=hidden.shape[-1] - first)
    weighted = torch.cat([hidden[..., first:] * of_units, used], dim=-1)
    return weighted @ projections + (used * (sizes == 0)).sum(-1, keepdim=True) * inputs


class MoELayer(nn.Module):
    """A router and its experts. The layer's state holds the router's hidden units first, then each expert's."""

    def __init__(self, size: int, expert_hidden_sizes: Sequence[int], router_hidden_size: int):
        super().__init__()
        self.router = Router(size, router_hidden_size, len(expert_hidden_sizes))
        self.experts = nn.ModuleList(Expert(size, hidden_size) for hidden_size in expert_hidden_sizes)
        self.state_sizes = [router_hidden_size, *expert_hidden_sizes]
        self.recurrent_sizes = [size for size in self.state_sizes if size > 0]
        self.state_size = sum(self.state_sizes)
        self.expert_sizes = np.array(expert_hidden_sizes)

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
        no_bias = self.router.fc.weight.new_zeros(1, self.router.gru.input_size)
        rows = [expert.projection.weight.t() for expert in recurrent]
        rows += [expert.projection.bias[None] if expert.hidden_size > 0 else no_bias for expert in self.experts]
        grus = join_grus([self.router.gru, *(expert.gru for expert in recurrent)])
        return JoinedLayer(grus, (self.router.fc.weight, self.router.fc.bias), torch.cat(rows))

    def step(
        self,
        inputs: np.ndarray,
        state: np.ndarray,
        keep: np.ndarray,
        joined: JoinedLayer,
        kept: Activations,
        t: int,
        rule: Callable[[Tensor], Tensor] | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`unroll` for one timestep, in arrays: inputs [B, size], state [B, state_size], keep [B], `joined` as arrays
        -> output, state, router weights [B, E], the weights used [B, E]."""
        hidden = kept.step(t, inputs, state, keep, joined.grus)
        routing = np.empty((len(inputs), len(self.experts)), np.float32)
        route(hidden, *joined.router, routing)
        used = routing if rule is None else rule(torch.from_numpy(routing)).numpy()
        weighted, output = np.empty((len(inputs), len(joined.projections)), np.float32), np.empty_like(inputs)
        mix(self.expert_sizes, joined.projections, inputs, hidden, self.router.hidden_size, used, weighted, output)
        return output, hidden, routing, used

    def unroll(
        self,
        inputs: Tensor,
        state: Tensor,
        keep: Tensor,
        joined: JoinedLayer,
        kept: Activations | None = None,
        rule: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """T timesteps at once.

        Args:
            inputs: [T, B, size].
            state: [B, state_size].
            keep: [T, B], 0 where an episode begins (the state returns to zero), else 1.
            joined: from `join`.
            kept: see `unroll_grus`.
            rule: changes the router's weights before they are used.

        Returns:
            output [T, B, size], state [B, state_size], router weights [T, B, E], the weights used [T, B, E].
        """
        hidden = unroll_grus(inputs, state, keep, joined.grus, self.recurrent_sizes, kept)
        routing = nn.functional.linear(hidden[..., : self.router.hidden_size], *joined.router).softmax(-1)
        used = routing if rule is None else rule(routing)
        mixed = _Mix.apply if inputs.is_cpu else mix_in_tensor_operations
        output = mixed(inputs, hidden, used, joined.projections, self.expert_sizes, self.router.hidden_size)
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


class JoinedPolicy(NamedTuple):
    """A policy's weights in the form in which many timesteps read them; head: weight [num_actions, size] and bias."""

    input: JoinedInput
    layers: list[JoinedLayer]
    head: tuple[Tensor, Tensor]

    def as_arrays(self) -> "JoinedPolicy":
        """Return the same for `step`: layers and head as arrays, and none of it part of a graph."""
        detached = (None if weights is None else weights.detach() for weights in self.input)
        return JoinedPolicy(JoinedInput(*detached), [_as_arrays(part) for part in self.layers], _as_arrays(self.head))


def _as_arrays(weights):
    if isinstance(weights, Tensor):
        return weights.detach().numpy()
    parts = map(_as_arrays, weights)
    return type(weights)(*parts) if hasattr(weights, "_fields") else tuple(parts)


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
        return [Activations(steps, batch, layer.recurrent_sizes) for layer in self.moe_layers]

    def join(self) -> JoinedPolicy:
        """Return all weights in the form that `step` and `unroll` read; it goes stale when parameters change."""
        head = (self.head.weight, self.head.bias)
        return JoinedPolicy(self.input_projection.join(), [layer.join() for layer in self.moe_layers], head)

    def tell(self, language: Tensor, joined: JoinedPolicy) -> Told:
        """Projected missions [M, lang_dim] -> what `step` and `unroll` read of them."""
        return self.input_projection.tell(language, joined.input)

    def step(
        self,
        observation: Tensor,
        told: Told,
        state: list[Tensor],
        keep: Tensor,
        joined: JoinedPolicy,
        activations: list[Activations],
        t: int = 0,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """`unroll` for one timestep, on the CPU and without gradients.

        Args:
            observation, told, keep: as `unroll` takes them, of one timestep.
            joined: from `join`, as arrays.
            activations, t: from `empty_activations`, to keep what is computed as their timestep t.

        Returns:
            tensors without the time dimension; the state lies in `activations`, and changes when they are used again.
        """
        hidden = self.input_projection.step(observation, told, joined.input)
        keep = keep.numpy()
        outputs = []
        for index, (layer, weights) in enumerate(zip(self.moe_layers, joined.layers, strict=True)):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed)
            now = (hidden, state[index].numpy(), keep)
            hidden, *rest = layer.step(*now, weights, activations[index], t, layer_rule)
            outputs.append([torch.from_numpy(array) for array in rest])
        weight, bias = joined.head
        return PolicyOutput(torch.from_numpy(hidden @ weight.T + bias), *map(list, zip(*outputs, strict=True)))

    def unroll(
        self,
        observation: Tensor,
        told: Told,
        state: list[Tensor],
        keep: Tensor,
        joined: JoinedPolicy,
        activations: list[Activations] | None = None,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """Run T timesteps of B agents.

        Args:
            observation: [T, B, 152] (`policy_input.observation_vector`).
            told: from `tell`, the missions of T * B rows.
            state: from `initial_state` or an earlier output.
            keep: [T, B], 0 where an episode begins at that step, else 1.
            joined: from `join`.
            activations: what `step` kept of these very steps, if it did.
            rule: changes each layer's router weights before they are used (dropout, lesions).
        """
        hidden = self.input_projection(observation.flatten(0, 1), told, joined.input)
        hidden = hidden.unflatten(0, keep.shape)
        outputs = []
        for index, (layer, weights) in enumerate(zip(self.moe_layers, joined.layers, strict=True)):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed)
            kept = None if activations is None else activations[index]
            hidden, *rest = layer.unroll(hidden, state[index], keep, weights, kept, layer_rule)
            outputs.append(rest)
        return PolicyOutput(self.head(hidden), *map(list, zip(*outputs, strict=True)))

    def forward(
        self, observation: Tensor, language: Tensor, state: list[Tensor], rule: RoutingRule | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """One timestep, by the definition: observation [B, 152] -> logits [B, A], state, router weights per layer."""
        joined = self.input_projection.join()
        hidden = self.input_projection(observation, self.input_projection.tell(language, joined), joined)
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
