"""A policy together with the language it understands: what training, evaluation and notebooks share."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basics.compiler_cache import announce
from basics.config import OWN_ENCODERS, legacy_config, load_keys
from basics.errors import UserError, say
from basics.extensions import choose, load_extensions
from mixture_of_experts import Expert, MixtureOfExpertsPolicy, Router
from policy.compiled.initialisation import initialise, principal_components
from policy.compiled.operations import linear
from policy.compiled.policies import PackedPolicy, accelerate
from policy.compiled.words import PackedReader
from policy.gru_policy import GRUPolicy
from policy.language import SentenceEncoder
from policy.missions import MissionEncoder, MissionFeatures, MissionTable
from policy.parser import MISSION_SIZE, MissionParser
from policy.recurrent_policy import RecurrentPolicy
from policy.words import WordNumbers, WordReader
from results.checkpoints import check_shapes, check_tensors

LANG_DIM = 32  # what a null lang_dim stands for, except with the parser


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


def make_encoder(name: str, fallback: str | None = None) -> MissionEncoder:
    """Return what `lang_encoder` and `lang_fallback` name; a folder that is called like OWN_ENCODERS is `./parser`.

    Raises:
        UserError: a sentence encoder that is not to be had.
    """
    own = {encoder.name: encoder for encoder in (MissionParser, WordNumbers)}
    return own[name]() if name in OWN_ENCODERS else SentenceEncoder(name, fallback)


def lang_dim_of(config: Mapping[str, Any]) -> int:
    """Return how many numbers a policy is told of a mission: lang_dim, or what its null stands for.

    Raises:
        UserError: it is not what the parser gives.
    """
    given, parsed = config["lang_dim"], config["lang_encoder"] == "parser"
    if parsed and given not in (None, MISSION_SIZE):
        raise UserError(
            f"lang_dim is {given}, but lang_encoder parser tells the policy its {MISSION_SIZE} numbers as they are:"
            " leave lang_dim out"
        )
    return given or (MISSION_SIZE if parsed else LANG_DIM)


def build_policy(config: Mapping[str, Any]) -> RecurrentPolicy:
    """Return a new policy of the kind and sizes that `config` names (a mixture if it has expert_hidden_sizes), with a
    value head if its objective is ppo.

    Raises:
        UserError: it names an expert, a router or an extension that is not there.
    """
    names = ("intermediate_dim", "num_actions", "obs_encoding", "lang_fusion", "match_keys")
    shared = {name: config[name] for name in names}
    shared["lang_dim"] = lang_dim_of(config)
    shared["parsed"] = config["lang_encoder"] == "parser"
    shared["value_head"] = config["objective"] == "ppo"
    load_extensions(config["extensions"])
    if "expert_hidden_sizes" not in config:
        return GRUPolicy(config["hidden_size"], **shared)
    kinds = {
        "expert": choose("expert", config["expert_kind"], {"gru": Expert}, config["extensions"]),
        "router": choose("router", config["router_kind"], {"gru": Router}, config["extensions"]),
    }
    sizes = config["expert_hidden_sizes"], config["router_hidden_size"]
    return MixtureOfExpertsPolicy(*sizes, **shared, **kinds, normalize_layers=config["normalize_layers"])


class Agent(nn.Module):
    """A policy, the projection of missions it reads, and the missions met so far.

    Attributes:
        policy: a MixtureOfExpertsPolicy, a GRUPolicy or another RecurrentPolicy: the parameters, and the definition.
        fast_policy: what computes with them: its compiled twin, or the policy itself (`accelerate`).
        extensions: which it was built with, see `basics.extensions`.
        repetition_penalty: what keeps it from doing again what it did before, see `policy.repetition`.
        lang_dim: how many numbers the policy is told of a mission.
        words: what reads missions word by word (`lang_encoder: words`), else None.
        lang_proj: Linear(embed_dim or size of what `words` says, lang_dim); of parsed missions the identity, for ever.
        missions: numbers of missions, and their embeddings.
    """

    def __init__(self, config: Mapping[str, Any], encoder: MissionEncoder, device: torch.device | str = "cpu"):
        super().__init__()
        announce()
        self.policy = build_policy(config)
        self.extensions = config["extensions"]
        self.repetition_penalty = config["repetition_penalty"]
        self.lang_dim = lang_dim_of(config)
        self.words = WordReader() if isinstance(encoder, WordNumbers) else None
        self.lang_proj = nn.Linear(self.words.size if self.words else encoder.embed_dim, self.lang_dim)
        initialise(self)
        if isinstance(encoder, MissionParser):
            nn.init.eye_(self.lang_proj.weight)
            nn.init.zeros_(self.lang_proj.bias)
            self.lang_proj.requires_grad_(False)
        self.missions = MissionTable(encoder, device)
        self.to(device)
        self.fast_policy = accelerate(self.policy)

    @torch.no_grad()
    def begin_projection(self, missions: Sequence[str], train: bool) -> None:
        """Let the projection of a frozen sentence encoder begin where it tells these missions apart
        (`initialisation.principal_components`), and learn from there if `train`; other encoders need neither."""
        if isinstance(self.missions.encoder, SentenceEncoder):
            weight, bias = principal_components(self.missions.encoder.embed(missions), self.lang_dim)
            self.lang_proj.weight[: len(weight)] = torch.from_numpy(weight)
            self.lang_proj.bias[: len(bias)] = torch.from_numpy(bias)
            self.lang_proj.requires_grad_(train)

    @property
    def device(self) -> torch.device:
        return self.lang_proj.weight.device

    def pack_words(self) -> Callable[[Tensor], Tensor]:
        """Return what makes of missions' embeddings what `lang_proj` reads, until the weights change."""
        if self.words is None:
            return nn.Identity()
        on_cpu = self.device.type == "cpu"
        return PackedReader(self.words.embedding, self.words.gru, self.words.query) if on_cpu else self.words

    def project(self, numbers: np.ndarray, read: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Mission numbers [M] -> projected missions [M, lang_dim].

        Args:
            read: from `pack_words`.
        """
        read = read or self.pack_words()
        embeddings = self.missions.embeddings[torch.from_numpy(numbers).to(self.device)]
        return linear(read(embeddings), self.lang_proj.weight, self.lang_proj.bias)

    @property
    def expert_hidden_sizes(self) -> Sequence[Sequence[int]]:
        """Per layer, its experts' hidden sizes; empty for a policy without routers."""
        return self.policy.expert_hidden_sizes

    def mission_features(self, packed: RecurrentPolicy | PackedPolicy, learn: bool = True) -> MissionFeatures:
        """Return the mission features of a packed policy (`pack` of `fast_policy`), none computed yet.

        Args:
            learn: whether gradients will flow through them.
        """
        read = self.pack_words()
        return MissionFeatures(lambda numbers: packed.mission_features(self.project(numbers, read)), learn)

    def state_dicts(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights as a checkpoint has them, by its keys."""
        parts = {"policy": self.policy, "lang_proj": self.lang_proj} | ({"words": self.words} if self.words else {})
        return {f"{name}_state_dict": part.state_dict() for name, part in parts.items()}

    def load_state_dicts(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the weights of a checkpoint.

        Raises:
            UserError: they do not fit.
        """
        for name, weights in self.state_dicts().items():
            check_shapes(checkpoint.get(name, {}), weights)
            getattr(self, name.removesuffix("_state_dict")).load_state_dict(checkpoint[name])


def policy_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the keys that decide what the policy of a config is and which embeddings it reads."""
    kind = ["hidden_size"]
    if "expert_hidden_sizes" in config:
        kind = ["expert_hidden_sizes", "router_hidden_size", "expert_kind", "router_kind", "normalize_layers"]
    return [*kind, "intermediate_dim", "lang_dim", "obs_encoding", "lang_fusion", "match_keys", "lang_encoder"]


@functools.cache
def _say_that_no_copy_is_needed(lang_encoder: str, recorded: str) -> None:
    say(f"--lang_encoder {lang_encoder} is not used where missions are read by `lang_encoder: {recorded}`")


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's config, the values that shape the policy checked as config.yaml describes them."""
    names = [*policy_keys(config), "repetition_penalty", "objective", "extensions"]
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
        lang_encoder: a local copy of the sentence encoder that the checkpoint records, for machines without the hub.

    Raises:
        UserError: the encoder is not to be had or has other dimensions, or the weights do not fit the config.
    """
    config = _checked(legacy_config(checkpoint["config"]))
    if config["lang_encoder"] in OWN_ENCODERS and lang_encoder is not None:
        _say_that_no_copy_is_needed(lang_encoder, config["lang_encoder"])
        lang_encoder = None
    encoder = make_encoder(lang_encoder or config["lang_encoder"])
    expected = checkpoint["lang_proj_state_dict"]["weight"].shape[1]
    if config["lang_encoder"] not in OWN_ENCODERS and encoder.embed_dim != expected:
        raise UserError(
            f"encoder {encoder.name} gives {encoder.embed_dim} numbers per mission, but this checkpoint was trained"
            f" with {config['lang_encoder']}, which gives {expected}: name a copy of that one with --lang_encoder"
        )
    if "lang_probes" in checkpoint:  # since checkpoints hold them
        check_tensors({"lang_probes": checkpoint["lang_probes"]}, "lang_probes")
        encoder.check_same(checkpoint["lang_probes"])
    with torch.device("meta"):
        expected = build_policy(config).state_dict()
    check_shapes(checkpoint["policy_state_dict"], expected)  # before anything of that size is built
    agent = Agent(config, encoder, device)
    agent.load_state_dicts(checkpoint)
    return agent.eval()
