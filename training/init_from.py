"""Beginning with the weights of another run (`init_from`)."""

from collections.abc import Iterable, Mapping
from typing import Any

from basics.config import legacy_config, shown
from basics.errors import UserError
from mixture_of_experts import per_layer
from policy.agent import Agent, policy_keys
from results import checkpoints

VALUE_HEAD = "value_head."


def policy_of_start(config: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Return a config with the policy of its `init_from`, as far as the user did not set it.

    Args:
        given: the keys that the user set.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    saved = legacy_config(checkpoints.load_checkpoint(config["init_from"])["config"])
    return config | {name: saved[name] for name in policy_keys(config) if name in saved and name not in given}


def begin_with(path: str, agent: Agent, config: Mapping[str, Any]) -> None:
    """Give an agent that was built by `config` the weights of a checkpoint of the same policy.

    A value head that the checkpoint lacks stays as it is; one that the agent lacks is left out.

    Raises:
        UserError: it cannot be read, or is another policy or another encoder's.
    """
    checkpoint = checkpoints.load_checkpoint(path)
    saved = legacy_config(checkpoint["config"])
    if ("expert_hidden_sizes" in saved) != ("expert_hidden_sizes" in config):
        raise UserError(f"init_from: {path} is the other kind of policy: begin with it in the script that trained it")
    other = [
        f"{name} {shown(saved.get(name))} (here {shown(config[name])})"
        for name in policy_keys(config)
        if _comparable(name, saved.get(name)) != _comparable(name, config[name])
    ]
    if other:
        raise UserError(f"init_from: {path} was trained with {', '.join(other)}: leave that out")
    try:
        if "lang_probes" in checkpoint:
            checkpoints.check_tensors({"lang_probes": checkpoint["lang_probes"]}, "lang_probes")
            agent.missions.encoder.check_same(checkpoint["lang_probes"])
        own, weights = agent.policy.state_dict(), checkpoint["policy_state_dict"]
        weights = {name: weight for name, weight in weights.items() if name in own or not name.startswith(VALUE_HEAD)}
        weights |= {name: own[name] for name in own if name.startswith(VALUE_HEAD) and name not in weights}
        agent.load_state_dicts(checkpoint | {"policy_state_dict": weights})
    except UserError as error:
        raise UserError(f"init_from: {path}: {error}") from None


def _comparable(name: str, value: Any) -> Any:
    """Return a value that is equal where the policy is: a flat list of experts is one layer's."""
    return per_layer(value) if name == "expert_hidden_sizes" and value is not None else value
