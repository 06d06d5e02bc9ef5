"""A policy together with the language it understands: what training, evaluation and notebooks share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basics.compiler_cache import announce
from basics.config import legacy_config, load_keys
from basics.errors import UserError
from mixture_of_experts import JoinedPolicy, MixtureOfExpertsPolicy, PolicyActivations, PolicyOutput, RoutingRule
from policy.gru_policy import GRUPolicy
from policy.input import Told, detached
from policy.language import MissionEncoder, MissionTable, principal_projection
from results.checkpoints import check_shapes


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is a GPU where there is one.

    Raises:
        UserError: this machine has no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        here = " and ".join(device for device, there in available.items() if there)
        raise UserError(f"device {name!r} is not available: this machine and its torch offer {here}")
    return torch.device(name)


def build_policy(config: Mapping[str, Any]) -> MixtureOfExpertsPolicy | GRUPolicy:
    """Return a new policy of the kind and sizes that `config` names (a mixture if it has expert_hidden_sizes)."""
    shared = {
        name: config[name] for name in ("intermediate_dim", "lang_dim", "num_actions", "obs_encoding", "lang_fusion")
    }
    if "expert_hidden_sizes" in config:
        return MixtureOfExpertsPolicy(config["expert_hidden_sizes"], config["router_hidden_size"], **shared)
    return GRUPolicy(config["hidden_size"], **shared)


class Agent(nn.Module):
    """A policy, the projection of missions it reads, and the missions met so far.

    Attributes:
        policy: a MixtureOfExpertsPolicy or GRUPolicy.
        lang_proj: Linear(embed_dim, lang_dim).
        missions: numbers of missions, and their embeddings.
    """

    def __init__(self, config: Mapping[str, Any], encoder: MissionEncoder, device: torch.device | str = "cpu"):
        super().__init__()
        announce()
        self.policy = build_policy(config)
        self.lang_proj = nn.Linear(encoder.embed_dim, config["lang_dim"])
        self.missions = MissionTable(encoder, device)
        self.to(device)

    @torch.no_grad()
    def spread_missions(self, missions: Sequence[str]) -> None:
        """Begin with a projection that tells these missions apart (see `language.principal_projection`)."""
        weight, bias = principal_projection(self.missions.encoder.embed(missions), self.lang_proj.out_features)
        self.lang_proj.weight[: len(weight)] = torch.from_numpy(weight)
        self.lang_proj.bias[: len(bias)] = torch.from_numpy(bias)

    @property
    def device(self) -> torch.device:
        return self.lang_proj.weight.device

    @property
    def expert_hidden_sizes(self) -> Sequence[Sequence[int]]:
        """Per layer, its experts' hidden sizes; empty for a policy without routers."""
        return self.policy.expert_hidden_sizes

    def project(self, numbers: np.ndarray) -> Tensor:
        """Mission numbers [M] -> projected missions [M, lang_dim]."""
        return self.lang_proj(self.missions.embeddings[torch.from_numpy(numbers).to(self.device)])

    def empty_activations(self, steps: int, batch: int) -> PolicyActivations | None:
        """Return where `step` keeps what it computes of `steps` timesteps; on a GPU it keeps nothing."""
        return self.policy.empty_activations(steps, batch) if self.device.type == "cpu" else None

    def step(
        self,
        observation: Tensor,
        told: Told,
        state: list[Tensor],
        keep: Tensor,
        joined: JoinedPolicy,
        activations: PolicyActivations | None,
        t: int = 0,
        rule: RoutingRule | None = None,
    ) -> PolicyOutput:
        """Act, without gradients.

        Args:
            observation: [B, 152].
            told: from `tell` [B].
            state: from `policy.initial_state` or an earlier output.
            keep: [B], 0 where an episode begins, else 1.
            joined: from `policy.join`; on the CPU, as arrays.
            activations, t: from `empty_activations`, and which of its timesteps this is.

        Returns:
            tensors without a time dimension: logits [B, A], routing [B, E] per layer.
        """
        if activations is not None:
            return self.policy.step(observation, told, state, keep, joined, activations, t, rule)
        with torch.no_grad():
            output = self.policy.unroll(observation[None], told, state, keep[None], joined, rule=rule)
        routing, used_routing = ([layer[0] for layer in layers] for layers in (output.routing, output.used_routing))
        return PolicyOutput(output.logits[0], output.state, routing, used_routing)


class Teller:
    """Tells an agent its missions, each distinct one computed once for as long as the weights stay the same.

    Attributes:
        told: what `policy.unroll` reads of all missions so far, differentiable.
    """

    def __init__(self, agent: Agent, joined: JoinedPolicy):
        self.agent, self.joined = agent, joined
        self.row_of: dict[int, int] = {}

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Mission numbers [R] -> their rows in `told`, which grows by those that are new."""
        numbers = numbers.tolist()
        new = [number for number in dict.fromkeys(numbers) if number not in self.row_of]
        if new:
            with torch.enable_grad():
                told = self.agent.policy.tell(self.agent.project(np.array(new)), self.joined)
                self.told = self.told.more(told) if self.row_of else told
            self.row_of |= {number: len(self.row_of) + place for place, number in enumerate(new)}
        return np.array([self.row_of[number] for number in numbers])

    def now(self, rows: np.ndarray) -> Told:
        """Return what `step` reads of these rows."""
        return Told(torch.from_numpy(rows).to(self.agent.device), *map(detached, self.told[1:]))


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's config, the values that shape the policy checked as config.yaml describes them."""
    kind = ("expert_hidden_sizes", "router_hidden_size") if "expert_hidden_sizes" in config else ("hidden_size",)
    names = (*kind, "intermediate_dim", "lang_dim", "obs_encoding", "lang_fusion", "lang_encoder")
    missing = [name for name in names if name not in config]
    if missing:
        raise UserError(f"its config lacks {', '.join(missing)}")
    keys = load_keys()
    return config | {name: keys[name].check(config[name]) for name in names}


def load_agent(
    checkpoint: Mapping[str, Any], lang_encoder: str | None = None, device: torch.device | str = "cpu"
) -> Agent:
    """Return the agent of a checkpoint (as read by `checkpoints.load_checkpoint`), ready to act.

    Args:
        lang_encoder: a local copy of the encoder that the checkpoint records, for machines without the hub.

    Raises:
        UserError: the encoder is not to be had or has other dimensions, or the weights do not fit the config.
    """
    config = _checked(legacy_config(checkpoint["config"]))
    encoder = MissionEncoder(lang_encoder or config["lang_encoder"])
    expected = checkpoint["lang_proj_state_dict"]["weight"].shape[1]
    if encoder.embed_dim != expected:
        raise UserError(
            f"encoder {encoder.name} gives {encoder.embed_dim} numbers per mission, but this checkpoint was trained"
            f" with {config['lang_encoder']}, which gives {expected}: name a copy of that one with --lang_encoder"
        )
    with torch.device("meta"):
        expected = build_policy(config).state_dict()
    check_shapes(checkpoint["policy_state_dict"], expected)  # before anything of that size is built
    agent = Agent(config, encoder, device)
    try:
        agent.policy.load_state_dict(checkpoint["policy_state_dict"])
        agent.lang_proj.load_state_dict(checkpoint["lang_proj_state_dict"])
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"the weights do not fit the config they came with: {first}") from None
    return agent.eval()
