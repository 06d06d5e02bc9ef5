"""The baseline: one GRU where the mixture has its layers, with the same input, interface and training loop."""

import torch
from torch import Tensor, nn

from gru import Activations, join_grus, unroll_grus
from mixture_of_experts import JoinedPolicy, PolicyOutput, RoutingRule
from policy_input import InputProjection


class GRUPolicy(nn.Module):
    """Observation and mission -> `input_projection` -> GRU(intermediate_dim, hidden_size) -> `head` -> logits."""

    expert_hidden_sizes: tuple = ()

    def __init__(
        self,
        hidden_size: int = 128,
        intermediate_dim: int = 64,
        lang_dim: int = 32,
        num_actions: int = 7,
        obs_encoding: str = "raw",
        lang_fusion: str = "concat",
    ):
        super().__init__()
        self.input_projection = InputProjection(obs_encoding, lang_dim, lang_fusion, intermediate_dim)
        self.gru = nn.GRU(intermediate_dim, hidden_size)
        self.head = nn.Linear(hidden_size, num_actions)

    def initial_state(self, batch: int) -> list[Tensor]:
        """Return zeros, a list of one tensor [batch, hidden_size]."""
        return [self.head.weight.new_zeros(batch, self.gru.hidden_size)]

    def empty_activations(self, steps: int, batch: int) -> list[Activations]:
        """As `MixtureOfExpertsPolicy.empty_activations`."""
        return [Activations(steps, batch, [self.gru.hidden_size])]

    def join(self) -> JoinedPolicy:
        """As `MixtureOfExpertsPolicy.join`, with the GRU as the only layer."""
        return JoinedPolicy(self.input_projection.join(), [join_grus([self.gru])])

    def step(
        self,
        observation: Tensor,
        language: Tensor,
        state: list[Tensor],
        keep: Tensor,
        joined: JoinedPolicy,
        activations: list[Activations],
        t: int = 0,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """As `MixtureOfExpertsPolicy.step`, with no routing in the result; `rule` must be None."""
        _refuse(rule)
        inputs = self.input_projection(observation, language, joined.input)
        arrays = (tensor.numpy() for tensor in (inputs, state[0], keep))
        hidden = torch.from_numpy(activations[0].step(t, *arrays, joined.layers[0]))
        return PolicyOutput(self.head(hidden), [hidden], [], [])

    def unroll(
        self,
        observation: Tensor,
        language: Tensor,
        state: list[Tensor],
        keep: Tensor,
        activations: list[Activations] | None = None,
        rule: RoutingRule | None = None,
        joined: JoinedPolicy | None = None,
    ) -> PolicyOutput:
        """As `MixtureOfExpertsPolicy.unroll`, with no routing in the result; `rule` must be None."""
        _refuse(rule)
        joined = joined or self.join()
        inputs = self.input_projection(observation, language, joined.input)
        kept = None if activations is None else activations[0]
        hidden = unroll_grus(inputs, state[0], keep, joined.layers[0], [self.gru.hidden_size], kept)
        return PolicyOutput(self.head(hidden), [hidden[-1]], [], [])

    def forward(self, observation: Tensor, language: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor], list]:
        """One timestep, by torch's own GRU: observation [B, 152] -> logits [B, A], state, no routing."""
        _, hidden = self.gru(self.input_projection(observation, language)[None], state[0][None])
        return self.head(hidden[0]), [hidden[0]], []


def _refuse(rule: RoutingRule | None) -> None:
    if rule is not None:
        raise ValueError("a GRU policy has no routers whose weights a rule could change")
