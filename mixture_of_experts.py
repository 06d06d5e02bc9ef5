"""The mixture-of-experts policy: layers of experts of different size, and in each layer a router that weighs them.

`forward` of `Expert`, `Router`, `MoELayer` and the policy is the definition, one timestep at a time. On the CPU, `step`
and `unroll` compute the same with a fraction of the operations; training and evaluation use them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from policy.gru import Activations, GRUs, batch_first, batch_last, room, unroll_grus
from policy.input import InputActivations, InputProjection, JoinedInput, Told, detached
from policy.kernels import linear, mix, mix_backward, route, route_backward

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
        projections: [size, H + E], every expert's projection, then every expert's bias (zeros for the identity).
    """

    grus: GRUs
    router: tuple[Tensor, Tensor]
    projections: Tensor


class LayerActivations:
    """What T timesteps of B agents compute in a layer, and the backward pass reads.

    Attributes:
        grus: see `Activations`.
        routing: [T, E, B], the router's weights; `weights` are the same per timestep, [B, E].
        output: [T, size, B].
        weighted: [H + E + 1, B], to work in.
    """

    def __init__(self, steps: int, batch: int, layer: "MoELayer"):
        self.grus = Activations(steps, batch, layer.recurrent_sizes)
        self.routing = room(steps, len(layer.experts), batch)
        self.weights = list(batch_first(self.routing))
        self.output = room(steps, layer.router.gru.input_size, batch)
        self.weighted = room(int(layer.expert_sizes.sum()) + len(layer.experts) + 1, batch)


class _Route(torch.autograd.Function):
    """States [T, B, R + H] -> themselves, so that all their gradient comes together here, and router weights [T, B, E].

    Both are in `kept` already, as the output of `_Mix` is."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, kept):
        ctx.weights, ctx.kept = (weight.numpy(), bias.numpy()), kept
        return hidden.view_as(hidden), batch_first(kept.routing)

    @staticmethod
    def backward(ctx, grad_hidden, grad_routing):
        kept, grad_hidden = ctx.kept, batch_last(grad_hidden)
        grads = [room(*array.shape) for array in ctx.weights]
        d_scores = room(*kept.routing[0].shape)
        arrays = (kept.grus.after, ctx.weights[0], kept.routing, batch_last(grad_routing), grad_hidden)
        route_backward(*arrays, *grads, d_scores)
        return batch_first(grad_hidden), *map(torch.from_numpy, grads), None


class _Mix(torch.autograd.Function):
    """inputs [T, B, size], states [T, B, R + H], weights to mix with [T, B, E], projections -> output [T, B, size]."""

    @staticmethod
    def forward(ctx, inputs, hidden, used, projections, sizes, first, kept):
        ctx.read, ctx.used, ctx.projections = batch_last(inputs), batch_last(used), projections.numpy()
        ctx.sizes, ctx.first, ctx.kept = sizes, first, kept
        return batch_first(kept.output)

    @staticmethod
    def backward(ctx, grad_output):
        hidden, grad_projections = ctx.kept.grus.after, room(*ctx.projections.shape)
        grads = [torch.empty(array.shape).numpy() for array in (ctx.read, hidden, ctx.used)]
        mix_backward(
            ctx.sizes, ctx.projections, ctx.read, hidden, ctx.first, ctx.used, batch_last(grad_output),
            *grads, grad_projections, ctx.kept.weighted,
        )  # fmt: skip
        return *map(batch_first, grads), torch.from_numpy(grad_projections), None, None, None


def mix_in_tensor_operations(
    inputs: Tensor, hidden: Tensor, used: Tensor, projections: Tensor, sizes: np.ndarray, first: int
) -> Tensor:
    """What `_Mix` computes, for devices that compiled functions do not run on."""
    sizes = torch.from_numpy(sizes).to(inputs.device)
    of_units = used.repeat_interleave(sizes, dim=-1, output_size=hidden.shape[-1] - first)
    weighted = torch.cat([hidden[..., first:] * of_units, used], dim=-1)
    return weighted @ projections.t() + (used * (sizes == 0)).sum(-1, keepdim=True) * inputs


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
        no_bias = self.router.fc.weight.new_zeros(self.router.gru.input_size)
        biases = [expert.projection.bias if expert.hidden_size > 0 else no_bias for expert in self.experts]
        columns = [*(expert.projection.weight for expert in recurrent), torch.stack(biases, dim=1)]
        grus = GRUs.of([self.router.gru, *(expert.gru for expert in recurrent)])
        return JoinedLayer(grus, (self.router.fc.weight, self.router.fc.bias), torch.cat(columns, dim=1))

    def _compute(self, inputs, state, keep, joined, rule) -> LayerActivations:
        """Run T timesteps, in arrays; a `rule` is given all of them at once."""
        kept = LayerActivations(*keep.shape, self)
        kept.grus.steps(inputs, state, keep, joined.grus)
        hidden, routing, first = kept.grus.after, kept.routing, self.router.hidden_size
        for t in range(len(keep)):
            route(hidden[t], *joined.router, routing[t])
        used = routing if rule is None else batch_last(rule(batch_first(routing)))
        for t in range(len(keep)):
            mix(
                self.expert_sizes, joined.projections, inputs[t], hidden[t], first, used[t],
                kept.weighted, kept.output[t],
            )  # fmt: skip
        return kept

    def step(
        self,
        inputs: np.ndarray,
        state: np.ndarray,
        keep: np.ndarray,
        joined: JoinedLayer,
        kept: LayerActivations,
        t: int,
        rule: Callable[[Tensor], Tensor] | None,
    ) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
        """`unroll` for one timestep: inputs [size, B], state [state_size, B] and keep [B] in arrays, `joined` as arrays
        -> output, an array [size, B], and tensors: state, router weights [B, E], the weights used [B, E]."""
        hidden, routing, output = kept.grus.step(t, inputs, state, keep, joined.grus), kept.routing[t], kept.output[t]
        route(hidden, *joined.router, routing)
        weights = used = kept.weights[t]
        if rule is not None:
            used = rule(weights)
            routing = batch_last(used)
        now = (inputs, hidden, self.router.hidden_size, routing)
        mix(self.expert_sizes, joined.projections, *now, kept.weighted, output)
        return output, kept.grus.states[t], weights, used

    def unroll(
        self,
        inputs: Tensor,
        state: Tensor,
        keep: Tensor,
        joined: JoinedLayer,
        kept: LayerActivations | None = None,
        rule: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """T timesteps at once.

        Args:
            inputs: [T, B, size].
            state: [B, state_size].
            keep: [T, B], 0 where an episode begins (the state returns to zero), else 1.
            joined: from `join`.
            kept: what `step` kept of these very timesteps, if it did.
            rule: changes the router's weights before they are used.

        Returns:
            output [T, B, size], state [B, state_size], router weights [T, B, E], the weights used [T, B, E].
        """
        first = self.router.hidden_size
        if not inputs.is_cpu:
            hidden = unroll_grus(inputs, state, keep, joined.grus)
            routing = nn.functional.linear(hidden[..., :first], *joined.router).softmax(-1)
            used = routing if rule is None else rule(routing)
            output = mix_in_tensor_operations(inputs, hidden, used, joined.projections, self.expert_sizes, first)
            return output, hidden[-1], routing, used
        if kept is None:
            now = (batch_last(inputs.detach()), batch_last(state.detach()), keep.numpy())
            kept = self._compute(*now, _as_arrays(joined), rule)
        hidden = unroll_grus(inputs, state, keep, joined.grus, kept.grus)
        hidden, routing = _Route.apply(hidden, *joined.router, kept)
        used = routing if rule is None else rule(routing)
        output = _Mix.apply(inputs, hidden, used, joined.projections, self.expert_sizes, first, kept)
        return output, hidden[-1], routing, used


class PolicyActivations(NamedTuple):
    """What T timesteps of B agents compute in a policy, and the backward pass reads."""

    input: InputActivations
    layers: list[LayerActivations] | list[Activations]


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
        fixed = JoinedInput(*map(detached, self.input))
        return JoinedPolicy(fixed, [_as_arrays(part) for part in self.layers], _as_arrays(self.head))


def head_logits(hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Tensor:
    """What the last layer says, [size, B], and the head as arrays -> logits [B, num_actions]."""
    logits = np.empty((len(bias), hidden.shape[1]), np.float32)
    linear(hidden, weight, bias, logits)
    return batch_first(logits)


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
        obs_encoding, lang_fusion: see `policy.input`.
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

    def empty_activations(self, steps: int, batch: int) -> PolicyActivations:
        """Return room for what a rollout computes, so that the unroll that learns from it need not do it again."""
        layers = [LayerActivations(steps, batch, layer) for layer in self.moe_layers]
        return PolicyActivations(self.input_projection.empty_activations(steps, batch), layers)

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
        activations: PolicyActivations,
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
        hidden = self.input_projection.step(observation, told, joined.input, activations.input, t)
        keep = keep.numpy()
        outputs = []
        for index, (layer, weights) in enumerate(zip(self.moe_layers, joined.layers, strict=True)):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed)
            now = (hidden, batch_last(state[index]), keep)
            hidden, *rest = layer.step(*now, weights, activations.layers[index], t, layer_rule)
            outputs.append(rest)
        logits = head_logits(hidden, *joined.head)
        return PolicyOutput(logits, *map(list, zip(*outputs, strict=True)))

    def unroll(
        self,
        observation: Tensor,
        told: Told,
        state: list[Tensor],
        keep: Tensor,
        joined: JoinedPolicy,
        activations: PolicyActivations | None = None,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """Run T timesteps of B agents.

        Args:
            observation: [T, B, 152] (`policy.input.observation_vector`).
            told: from `tell`, the missions of T * B rows.
            state: from `initial_state` or an earlier output.
            keep: [T, B], 0 where an episode begins at that step, else 1.
            joined: from `join`.
            activations: what `step` kept of these very steps, if it did.
            rule: changes each layer's router weights before they are used (dropout, lesions).
        """
        kept_input = None if activations is None else activations.input
        hidden = self.input_projection.unroll(observation, told, joined.input, kept_input)
        outputs = []
        for index, (layer, weights) in enumerate(zip(self.moe_layers, joined.layers, strict=True)):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed)
            kept = None if activations is None else activations.layers[index]
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
