"""A mixture layer: its router's and its experts' GRUs side by side, then routing, then the mixture of outputs."""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mixture_of_experts import Expert, MoELayer
from policy.compiled.buffers import aligned_zeros, batch_first, batch_last
from policy.compiled.kernels import layer_forward, mix, mix_backward, route, route_backward
from policy.compiled.normalisation import NormalBuffers
from policy.compiled.recurrence import GRUs, RecurrenceBuffers, recur


class LayerBuffers:
    """What T timesteps of B agents compute in a layer of R router and H expert hidden units, for the backward pass too.

    Attributes:
        recurrence: see `RecurrenceBuffers`.
        routing: [T, E, B], the router's weights; `weights` are the same per timestep, tensors [B, E].
        output: [T, size, B].
        inputs: normalised, where the layer reads them so.
        weighted: [H + E + 1, B], to work in.
    """

    def __init__(self, steps: int, batch: int, layer: MoELayer):
        sizes, experts = layer.state_sizes, len(layer.experts)
        self.recurrence = RecurrenceBuffers(steps, batch, [size for size in sizes if size > 0])
        self.routing = aligned_zeros(steps, experts, batch)
        self.weights = list(batch_first(self.routing))
        size = layer.router.gru.input_size
        self.output = aligned_zeros(steps, size, batch)
        self.inputs = NormalBuffers(steps, size, batch) if layer.normalize else None
        self.weighted = aligned_zeros(sum(sizes[1:]) + experts + 1, batch)


class Route(torch.autograd.Function):
    """States [T, B, R + H] -> themselves, so that all their gradient comes together here, and router weights [T, B, E].

    Both are in the buffers already, as the output of `_Mix` is."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, buffers):
        ctx.weights, ctx.buffers = (weight.numpy(), bias.numpy()), buffers
        return hidden.view_as(hidden), batch_first(buffers.routing)

    @staticmethod
    def backward(ctx, grad_hidden, grad_routing):
        buffers, grad_hidden = ctx.buffers, batch_last(grad_hidden)
        grad_weight, grad_bias = (aligned_zeros(*array.shape) for array in ctx.weights)
        d_scores = aligned_zeros(*buffers.routing[0].shape)
        arrays = (buffers.recurrence.after, ctx.weights[0], buffers.routing, batch_last(grad_routing), grad_hidden)
        route_backward(*arrays, grad_weight, grad_bias, d_scores)
        return batch_first(grad_hidden), torch.from_numpy(grad_weight), torch.from_numpy(grad_bias), None


class _Mix(torch.autograd.Function):
    """inputs [T, B, size], states [T, B, R + H], weights to mix with [T, B, E], projections -> output [T, B, size]."""

    @staticmethod
    def forward(ctx, inputs, hidden, used, projections, sizes, first, buffers):
        ctx.arrays = projections.numpy(), batch_last(inputs), batch_last(used)
        ctx.sizes, ctx.first, ctx.buffers = sizes, first, buffers
        return batch_first(buffers.output)

    @staticmethod
    def backward(ctx, grad_output):
        (projections, inputs, used), hidden = ctx.arrays, ctx.buffers.recurrence.after
        grad_inputs, grad_hidden, grad_used = (torch.empty(array.shape).numpy() for array in (inputs, hidden, used))
        grad_projections = aligned_zeros(*projections.shape)
        mix_backward(
            ctx.sizes, projections, inputs, hidden, ctx.first, used, batch_last(grad_output),
            grad_inputs, grad_hidden, grad_used, grad_projections, ctx.buffers.weighted,
        )  # fmt: skip
        grads = batch_first(grad_inputs), batch_first(grad_hidden), batch_first(grad_used)
        return *grads, torch.from_numpy(grad_projections), None, None, None


class PackedLayer:
    """A layer's weights in the form that its timesteps read, until they change.

    Attributes:
        grus: of all R + H hidden units, the router's first.
        projections: [size, H + E], every expert's projection, then every expert's bias (zeros for the identity).
    """

    def __init__(self, layer: MoELayer, buffers: LayerBuffers):
        self.router, self.buffers = layer.router, buffers
        experts = cast(list[Expert], list(layer.experts))  # a ModuleList does not say what is in it
        recurrent = [expert for expert in experts if expert.state_size > 0]
        self.grus: list[nn.GRU] = [layer.router.gru, *(expert.gru for expert in recurrent)]
        self.weights = GRUs.of(self.grus)
        self.sizes = np.array([expert.state_size for expert in experts])
        self.first = layer.router.state_size
        self.router_weights = layer.router.fc.weight.detach().numpy(), layer.router.fc.bias.detach().numpy()
        with torch.enable_grad():
            no_bias = layer.router.fc.weight.new_zeros(layer.router.gru.input_size)
            biases = [expert.projection.bias if expert.state_size > 0 else no_bias for expert in experts]
            columns = [*(expert.projection.weight for expert in recurrent), torch.stack(biases, dim=1)]
            self.projections = torch.cat(columns, dim=1)
        self.projection_array = self.projections.detach().numpy()

    def step(
        self,
        t: int,
        inputs: np.ndarray,
        state: Tensor,
        not_done: np.ndarray,
        rule: Callable[[Tensor], Tensor] | None,
    ) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
        """Run timestep t, without gradients: inputs [size, B] and not_done [B] as arrays, state [B, R + H].

        Returns:
            the output, an array [size, B]; tensors: the state [B, R + H], router weights and weights used [B, E].
        """
        buffers, recurrence = self.buffers, self.buffers.recurrence
        weights = used = buffers.weights[t]
        if buffers.inputs is not None:
            inputs = buffers.inputs.step(t, inputs)
        before = recurrence.array_of(state)
        if rule is None:
            layer_forward(
                t, *self.weights, *self.router_weights, self.sizes, self.projection_array,
                inputs, before, not_done, recurrence.gates, recurrence.after, recurrence.before,
                buffers.routing, buffers.weighted, buffers.output,
            )  # fmt: skip
        else:
            hidden = recurrence.step(t, inputs, before, not_done, self.weights)
            route(hidden, *self.router_weights, buffers.routing[t])
            used = rule(weights)
            arrays = (inputs, hidden, self.first, batch_last(used))
            mix(self.sizes, self.projection_array, *arrays, buffers.weighted, buffers.output[t])
        return buffers.output[t], recurrence.states[t], weights, used

    def unroll(
        self, inputs: Tensor, state: Tensor, not_done: Tensor, rule: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All timesteps, which have been run: inputs [T, B, size], state [B, R + H], not_done [T, B].

        Returns:
            as part of the graph: output [T, B, size], state [B, R + H], router weights and weights used [T, B, E].
        """
        if self.buffers.inputs is not None:
            inputs = self.buffers.inputs.unroll(inputs)
        hidden = recur(inputs, state, not_done, self.grus, self.weights, self.buffers.recurrence)
        hidden, routing = Route.apply(hidden, self.router.fc.weight, self.router.fc.bias, self.buffers)
        used = routing if rule is None else rule(routing)
        output = _Mix.apply(inputs, hidden, used, self.projections, self.sizes, self.first, self.buffers)
        return output, hidden[-1], routing, used
