"""The baseline: one GRU where the mixture has its layers, with the same input, interface and training loop."""

from torch import Tensor, nn

from mixture_of_experts import JoinedPolicy, PolicyActivations, PolicyOutput, RoutingRule, head_logits
from policy.gru import Activations, GRUs, batch_last, unroll_grus
from policy.input import InputProjection, Told


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

    def empty_activations(self, steps: int, batch: int) -> PolicyActivations:
        """As `MixtureOfExpertsPolicy.empty_activations`."""
        of_input = self.input_projection.empty_activations(steps, batch)
        return PolicyActivations(of_input, [Activations(steps, batch, [self.gru.hidden_size])])

    def join(self) -> JoinedPolicy:
        """As `MixtureOfExpertsPolicy.join`, with the GRU as the only layer."""
        head = (self.head.weight, self.head.bias)
        return JoinedPolicy(self.input_projection.join(), [GRUs.of([self.gru])], head)

    def tell(self, language: Tensor, joined: JoinedPolicy) -> Told:
        """As `MixtureOfExpertsPolicy.tell`."""
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
        """As `MixtureOfExpertsPolicy.step`, with no routing in the result; `rule` must be None."""
        _refuse(rule)
        inputs = self.input_projection.step(observation, told, joined.input, activations.input, t)
        hidden = activations.layers[0].step(t, inputs, batch_last(state[0]), keep.numpy(), joined.layers[0])
        logits = head_logits(hidden, *joined.head)
        return PolicyOutput(logits, [activations.layers[0].states[t]], [], [])

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
        """As `MixtureOfExpertsPolicy.unroll`, with no routing in the result; `rule` must be None."""
        _refuse(rule)
        kept_input, kept = (None, None) if activations is None else (activations.input, activations.layers[0])
        inputs = self.input_projection.unroll(observation, told, joined.input, kept_input)
        hidden = unroll_grus(inputs, state[0], keep, joined.layers[0], kept)
        return PolicyOutput(self.head(hidden), [hidden[-1]], [], [])

    def forward(self, observation: Tensor, language: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor], list]:
        """One timestep, by torch's own GRU: observation [B, 152] -> logits [B, A], state, no routing."""
        joined = self.input_projection.join()
        inputs = self.input_projection(observation, self.input_projection.tell(language, joined), joined)
        _, hidden = self.gru(inputs[None], state[0][None])
        return self.head(hidden[0]), [hidden[0]], []


def _refuse(rule: RoutingRule | None) -> None:
    if rule is not None:
        raise ValueError("a GRU policy has no routers whose weights a rule could change")
