"""`accelerate`: a policy's compiled twin, where it is made of parts that have one."""

from abc import ABC, abstractmethod
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from basics.errors import warn
from mixture_of_experts import Expert, MixtureOfExpertsPolicy, MoELayer, Router
from policy.compiled.buffers import batch_first
from policy.compiled.kernels import linear as linear_step
from policy.compiled.mixing import LayerBuffers, PackedLayer
from policy.compiled.operations import linear
from policy.compiled.reading import InputBuffers, PackedInput
from policy.compiled.recurrence import GRUs, RecurrenceBuffers, recur
from policy.gru_policy import GRUPolicy
from policy.input import InputProjection
from policy.recurrent_policy import PolicyOutput, RecurrentPolicy, RoutingRule

SLOWER = 5.5  # times per env-step of training at 64 environments x 20 (benchmarks/throughput.py --parts definition)


class CompiledPolicy(ABC):
    """The interface of `RecurrentPolicy`, compiled; it computes with the parameters of the policy it was made of."""

    def __init__(self, policy: MixtureOfExpertsPolicy | GRUPolicy):
        self.policy = policy
        self.initial_state = policy.initial_state
        self._buffers: dict[tuple[int, int], tuple] = {}

    def pack(self, steps: int, batch: int) -> "PackedPolicy":
        """Return what runs `steps` timesteps of `batch` agents until the weights change.

        Buffers are kept for the next time, those of two shapes (a rollout's, and its parts' that are learned from):
        states and routing of what ran before are overwritten.
        """
        if (steps, batch) not in self._buffers:
            newest = list(self._buffers.items())[-1:]
            self._buffers = dict(newest) | {(steps, batch): self._new_buffers(steps, batch)}
        return self._packed(steps, *self._buffers[steps, batch])

    @abstractmethod
    def _new_buffers(self, steps: int, batch: int) -> tuple: ...

    @abstractmethod
    def _packed(self, steps: int, *buffers) -> "PackedPolicy": ...


class PackedPolicy(ABC):
    """A policy's weights in the form that kernels read, and buffers for what its timesteps compute.

    `unroll` learns from the timesteps that `step` has run: if all were, it computes nothing of them again.
    """

    def __init__(self, policy: MixtureOfExpertsPolicy | GRUPolicy, steps: int, input_buffers: InputBuffers):
        self.policy, self.steps, self.steps_run = policy, steps, 0
        self.input = PackedInput(policy.input_projection, input_buffers)
        heads = [policy.head] if policy.value_head is None else [policy.head, policy.value_head]
        with torch.enable_grad():  # one product for both: a row per action, and the value's last
            self.heads = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
        self.head_arrays = [weight.detach().numpy() for weight in self.heads]

    def mission_features(self, language: Tensor) -> tuple[Tensor, ...]:
        """See `RecurrentPolicy.mission_features`."""
        return self.input.mission_features(language)

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
        """See `RecurrentPolicy.step`; without gradients, and valid until the buffers' timestep t is run again."""
        first, going_on = len(self.policy.input_projection.state_sizes), not_done.numpy()
        inputs, due, input_state = self.input.step(t, observation, features, mission, state[:first], going_on)
        hidden, after, routing, used = self._step(t, inputs, state[first:], going_on, rule)
        weight, bias = self.head_arrays
        output = np.empty((len(bias), hidden.shape[1]), np.float32)
        linear_step(hidden, weight, bias, output)
        self.steps_run = t + 1 if t in (0, self.steps_run) else 0
        logits, value = self._logits_and_value(batch_first(output))
        return PolicyOutput(logits, [*input_state, *after], routing, used, due, value)

    def unroll(
        self,
        observation: Tensor,
        features: tuple[Tensor, ...],
        mission: Tensor,
        state: list[Tensor],
        not_done: Tensor,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """See `RecurrentPolicy.unroll`."""
        if self.steps_run != self.steps:
            now = state
            for t in range(self.steps):
                now = self.step(t, observation[t], features, mission[t], now, not_done[t], rule).state
        first = len(self.policy.input_projection.state_sizes)
        inputs, due, input_state = self.input.unroll(observation, features, mission, state[:first], not_done)
        hidden, after, routing, used = self._unroll(inputs, state[first:], not_done, rule)
        logits, value = self._logits_and_value(linear(hidden, *self.heads))
        return PolicyOutput(logits, [*input_state, *after], routing, used, due, value)

    def _logits_and_value(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the heads give, [..., B, num_actions (+ 1)] -> the logits, and the value if there is one."""
        if self.policy.value_head is None:
            return output, None
        return output[..., :-1], output[..., -1]

    @abstractmethod
    def _step(
        self, t: int, inputs: np.ndarray, state: list[Tensor], not_done: np.ndarray, rule: RoutingRule | None
    ) -> tuple[np.ndarray, list[Tensor], list[Tensor], list[Tensor]]:
        """What the head reads [size, B], state, routing and used routing of timestep t."""

    @abstractmethod
    def _unroll(
        self, inputs: Tensor, state: list[Tensor], not_done: Tensor, rule: RoutingRule | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """The same of all timesteps, as part of the graph."""


def _layers(policy: MixtureOfExpertsPolicy) -> list[MoELayer]:
    return cast(list[MoELayer], list(policy.moe_layers))  # a ModuleList does not say what is in it


class CompiledMixture(CompiledPolicy):
    policy: MixtureOfExpertsPolicy

    def _new_buffers(self, steps, batch):
        layers = [LayerBuffers(steps, batch, layer) for layer in _layers(self.policy)]
        return InputBuffers(steps, batch, self.policy.input_projection), layers

    def _packed(self, steps, input_buffers, layer_buffers):
        return PackedMixture(self.policy, steps, input_buffers, layer_buffers)


class PackedMixture(PackedPolicy):
    def __init__(self, policy: MixtureOfExpertsPolicy, steps, input_buffers, layer_buffers: list[LayerBuffers]):
        super().__init__(policy, steps, input_buffers)
        self.layers = [PackedLayer(*pair) for pair in zip(_layers(policy), layer_buffers, strict=True)]

    def _step(self, t, hidden, state, not_done, rule):
        results = []
        for index, (layer, before) in enumerate(zip(self.layers, state, strict=True)):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed, t)
            hidden, *result = layer.step(t, hidden, before, not_done, layer_rule)
            results.append(result)
        return hidden, *map(list, zip(*results, strict=True))

    def _unroll(self, hidden, state, not_done, rule):
        results = []
        for index, (layer, before) in enumerate(zip(self.layers, state, strict=True)):
            layer_rule = None if rule is None else lambda routed, index=index: rule(index, routed, slice(None))
            hidden, *result = layer.unroll(hidden, before, not_done, layer_rule)
            results.append(result)
        return hidden, *map(list, zip(*results, strict=True))


class CompiledGRU(CompiledPolicy):
    policy: GRUPolicy

    def _new_buffers(self, steps, batch):
        sizes = [self.policy.gru.hidden_size]
        return InputBuffers(steps, batch, self.policy.input_projection), RecurrenceBuffers(steps, batch, sizes)

    def _packed(self, steps, input_buffers, buffers):
        return PackedGRU(self.policy, steps, input_buffers, buffers)


class PackedGRU(PackedPolicy):
    policy: GRUPolicy

    def __init__(self, policy: GRUPolicy, steps, input_buffers, buffers: RecurrenceBuffers):
        super().__init__(policy, steps, input_buffers)
        self.weights, self.buffers = GRUs.of([policy.gru]), buffers

    def _step(self, t, inputs, state, not_done, rule):
        _refuse(rule)
        hidden = self.buffers.step(t, inputs, self.buffers.array_of(state[0]), not_done, self.weights)
        return hidden, [self.buffers.states[t]], [], []

    def _unroll(self, inputs, state, not_done, rule):
        _refuse(rule)
        hidden = recur(inputs, state[0], not_done, [self.policy.gru], self.weights, self.buffers)
        return hidden, [hidden[-1]], [], []


def _refuse(rule: RoutingRule | None) -> None:
    if rule is not None:
        raise ValueError("a GRU policy has no routers whose weights a rule could change")


def accelerate(policy: RecurrentPolicy) -> RecurrentPolicy | CompiledPolicy:
    """Return what trains and evaluates a policy fast: its compiled twin, which shares its parameters.

    The twin knows the parts of `mixture_of_experts.py` and `gru_policy.py`, on the CPU. A policy with any other part
    runs by its definition, and one line says so; so does every policy on another device.
    """
    if next(policy.parameters()).device.type != "cpu":
        return policy
    if type(policy) is GRUPolicy and type(policy.input_projection) is InputProjection:
        return CompiledGRU(policy)
    unknown = [f"policy {type(policy).__name__}"]
    if type(policy) is MixtureOfExpertsPolicy:
        parts: list[tuple[nn.Module, type]] = [(policy.input_projection, InputProjection)]
        for layer in _layers(policy):
            parts += [(layer, MoELayer), (layer.router, Router), *((expert, Expert) for expert in layer.experts)]
        unknown = dict.fromkeys(type(part).__name__ for part, known in parts if type(part) is not known)
        if not unknown:
            return CompiledMixture(policy)
    warn(
        f"no compiled twin for {', '.join(unknown)}: the policy runs by its definition, which takes about"
        f" {SLOWER} times as long per step"
    )
    return policy
