"""The baseline: one GRU where the mixture has its layers, with the same input, interface and training loop."""

from torch import Tensor, nn

from policy.input import InputProjection
from policy.recurrent_policy import PolicyOutput, RecurrentPolicy, RoutingRule


class GRUPolicy(RecurrentPolicy):
    """Observation and mission -> `input_projection` -> GRU(intermediate_dim, hidden_size) -> `head` -> logits,
    and `value_head` -> value where it is wanted."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_dim: int,
        lang_dim: int,
        num_actions: int,
        obs_encoding: str,
        lang_fusion: str,
        parsed: bool = False,
        match_keys: bool = False,
        value_head: bool = False,
    ):
        super().__init__()
        self.input_projection = InputProjection(
            obs_encoding, lang_dim, lang_fusion, intermediate_dim, parsed, match_keys
        )
        self.gru = nn.GRU(intermediate_dim, hidden_size)
        self.head = nn.Linear(hidden_size, num_actions)
        if value_head:
            self.value_head = nn.Linear(hidden_size, 1)
        self.state_sizes = [*self.input_projection.state_sizes, hidden_size]

    def forward(
        self, observation: Tensor, language: Tensor, state: list[Tensor], rule: RoutingRule | None = None, t: int = 0
    ) -> PolicyOutput:
        """Run one timestep, see `RecurrentPolicy.forward`; there is no routing in the result, and no rule for it."""
        if rule is not None:
            raise ValueError("a GRU policy has no routers whose weights a rule could change")
        *before, gru_state = state
        inputs, due, input_state = self.input_projection(observation, language, before)
        _, hidden = self.gru(inputs[None], gru_state[None])
        value = self.value_of(hidden[0])
        return PolicyOutput(self.head(hidden[0]), [*input_state, hidden[0]], [], [], due, value)
