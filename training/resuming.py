"""Going on with a run: which of its checkpoints is the newest, what may have changed, whether its state is sound."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from basics.config import LARGEST_INT, legacy_config, shown
from basics.errors import UserError
from basics.files import ArtifactError
from results import checkpoints, paths

if TYPE_CHECKING:
    import torch

    from policy.repetition import Repetitions

RESUMABLE_KEYS = {  # what may change when a run is resumed: none of it changes what is computed
    "num_updates", "log_interval", "checkpoint_interval", "wandb_project", "tensorboard", "checkpoint_dir",
    "lang_fallback",
}  # fmt: skip
STATE = (  # of a checkpoint, what resuming needs beside the policy
    "update", "optimizer", "noise", "env", "policy_state", "keep", "sums", "updates_summed",
    "episode_steps", "episodes",
)  # fmt: skip
LARGEST_COUNT = 2**40  # of episodes and levels
ENV_RANGES = {"seed": (0, LARGEST_INT), "actions_taken": (-1, 6)}  # of an environment's state; -1: none was taken
NUM_SUMS = 5  # loss, ce, penalty, accuracy, mean_lpc, where they were summed in one tensor


def run_checkpoints(config: Mapping[str, Any]) -> list[paths.CheckpointRef]:
    """Return the checkpoints of the run that `config` describes, by update, the final one last."""
    task, trial, seed = config["task_id"], config["trial"], config["seed"]
    folder = paths.run_dir(config["checkpoint_dir"], task, trial, seed)
    found = filter(None, map(paths.checkpoint_ref, folder.glob("checkpoint_*.pt")))
    order = {ref: math.inf if ref.update is None else ref.update for ref in found}
    return [replace(ref, task_id=task, trial=trial, seed=seed) for ref in sorted(order, key=order.__getitem__)]


def newest_checkpoint(config: Mapping[str, Any]) -> tuple[Path, dict] | None:
    """Return the path and the content of the run's furthest checkpoint, if there is one.

    A run that was finished and then extended has numbered checkpoints that are newer than its final one.

    Raises:
        ArtifactError: it cannot be read.
    """
    refs = run_checkpoints(config)
    if not refs:
        return None
    final = checkpoints.load_checkpoint(refs[-1].path)
    newest_numbered = refs[-2].update if len(refs) > 1 and refs[-1].update is None else None
    if newest_numbered is not None and newest_numbered > updates_done(final):
        return refs[-2].path, checkpoints.load_checkpoint(refs[-2].path)
    return refs[-1].path, final


def updates_done(checkpoint: Mapping[str, Any]) -> int:
    """Return how many updates a checkpoint has behind it; one without a state to resume from is a finished run's."""
    state = checkpoint.get("resume_state")
    update = state.get("update") if isinstance(state, dict) else checkpoint["config"].get("num_updates")
    return update if _is_count(update) else 0


def resumed_config(config: dict[str, Any], given: Iterable[str], checkpoint: dict, path: Path) -> dict[str, Any]:
    """Return the config to resume a run with: its own, and of the keys now `given` those that may change.

    Raises:
        UserError: a key is given another value than the run was started with.
    """
    saved = legacy_config(checkpoint["config"])
    given = [name for name in given if name != "lang_dim" or config[name] is not None]  # null: it follows, as it did
    if "resume_state" not in checkpoint:
        raise UserError(f"{path} holds no state to resume from; start another trial, or --overwrite this one")
    if ("expert_hidden_sizes" in saved) != ("expert_hidden_sizes" in config):
        raise UserError(f"{path} holds the other kind of policy: resume it with the script that started it")
    changed = [
        f"{name} {saved[name]!r} (now {config[name]!r})"
        for name in given
        if name in saved and saved[name] != config[name] and name not in RESUMABLE_KEYS
    ]
    if changed:
        raise UserError(f"{path} was started with {', '.join(changed)}: resume with the same, or start another trial")
    return config | saved | {name: config[name] for name in given}


def resume(trainer, checkpoint: dict, path: Path) -> None:
    """Let a new trainer go on from a checkpoint, if all of its state is sound.

    Raises:
        ArtifactError: it is not; nothing on disk has changed.
    """
    try:
        _check_state(trainer, checkpoint["resume_state"])
        if "lang_probes" in checkpoint:
            checkpoints.check_tensors({"lang_probes": checkpoint["lang_probes"]}, "lang_probes")
            trainer.agent.missions.encoder.check_same(checkpoint["lang_probes"])
        trainer.resume(checkpoint)
    except UserError as error:
        raise ArtifactError(path, f"its state cannot be resumed from: {error}") from None
    except Exception as error:  # what a damaged state makes fail, and how, is beyond counting
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ArtifactError(path, f"its state cannot be resumed from: {reason}") from error


def _check_state(trainer, state: Any) -> None:
    """Raise a UserError unless `state` (a checkpoint's `resume_state`) has everything a trainer's has, in its shape."""
    import torch

    num_envs = trainer.config["num_envs"]
    _check_names("resume_state", state, STATE)
    for name in ("update", "updates_summed"):
        if not _is_count(state[name]):
            raise UserError(f"{name} is {shown(state[name])}, expected a whole number >= 0")
    _check_optimizer(trainer.optimizer, state["optimizer"])
    _check_tensor("noise", state["noise"], trainer.noise.get_state())
    if not isinstance(state["env"], dict):
        raise UserError(f"env is a {type(state['env']).__name__}")
    checkpoints.check_tensors(state["env"], "env")
    for name, tensor in state["env"].items():
        if tensor.dtype.is_floating_point or tensor.ndim == 0 or tensor.shape[0] not in (1, num_envs):
            raise UserError(f"env, {name}: {_kind(tensor)}, expected whole numbers [{num_envs}, ...]")
        low, high = ENV_RANGES.get(name, (0, LARGEST_COUNT))
        if tensor.numel() and not low <= tensor.min() <= tensor.max() <= high:
            raise UserError(f"env, {name}: its numbers are not all from {low} to {high}")
    layers = state["policy_state"]
    if not isinstance(layers, list) or len(layers) != len(trainer.policy_state):
        raise UserError(f"policy_state is no list of {len(trainer.policy_state)} layers' states")
    for place, (layer, expected) in enumerate(zip(layers, trainer.policy_state, strict=True)):
        _check_tensor(f"policy_state, layer {place}", layer, expected)
    _check_tensor("keep", state["keep"], torch.zeros(num_envs))
    sums = state["sums"]
    checkpoints.check_tensors(sums if isinstance(sums, dict) else {"sums": sums}, "sums")
    if isinstance(sums, dict) and any(total.ndim for total in sums.values()):
        raise UserError("sums are no single numbers")
    if isinstance(sums, torch.Tensor) and sums.shape != (NUM_SUMS,):
        raise UserError(f"sums is {_kind(sums)}, expected float32 [{NUM_SUMS}]")
    if trainer.repetitions.penalty:
        _check_names("resume_state", state, ["repetitions"])
        _check_repetitions(state["repetitions"], trainer.repetitions)
    _check_tensor("episode_steps", state["episode_steps"], torch.zeros(num_envs, dtype=torch.int64))
    if not 0 <= state["episode_steps"].min() <= state["episode_steps"].max() <= LARGEST_COUNT:
        raise UserError("episode_steps are no numbers of steps")
    if trainer.by_task is not None:
        _check_names("resume_state", state, ["by_task"])
        expected = trainer.by_task.state()
        _check_names("by_task", state["by_task"], expected)
        for name, tensor in expected.items():
            _check_by_task(f"by_task, {name}", state["by_task"][name], tensor)
    counts = state["episodes"]
    if not isinstance(counts, list | tuple) or len(counts) != 3 or not all(map(_is_number, counts)):
        raise UserError(f"episodes is {shown(counts)}, expected three numbers")


def _check_repetitions(saved: Any, repetitions: "Repetitions") -> None:
    """Raise a UserError unless `saved` is a state of `repetitions`."""
    import torch

    _check_names("repetitions", saved, ("places", "counts"))
    places, counts = saved["places"], saved["counts"]
    checkpoints.check_tensors(saved, "repetitions")
    _check_tensor("repetitions, places", places, torch.zeros(places.numel(), dtype=torch.int64))
    _check_tensor("repetitions, counts", counts, torch.zeros(places.numel(), dtype=torch.uint8))
    if places.numel() and not 0 <= places.min() <= places.max() < repetitions.counts.size:
        raise UserError("repetitions, places: they are no places")


def _check_by_task(where: str, tensor: Any, expected: "torch.Tensor") -> None:
    """As `_check_tensor`; the LPC of a policy without experts is no number."""
    import torch

    if isinstance(tensor, torch.Tensor) and tensor.shape == expected.shape and where.endswith("measures"):
        tensor = tensor.nan_to_num()
    _check_tensor(where, tensor, expected)
    if not 0 <= tensor.min() <= tensor.max() <= LARGEST_INT:
        raise UserError(f"{where}: its numbers are no sums of steps and episodes")


def _check_optimizer(optimizer: "torch.optim.Optimizer", state: Any) -> None:
    """Raise a UserError unless `state` is a state of Adam for exactly the parameters of `optimizer`."""
    _check_names("optimizer", state, ("state", "param_groups"))
    groups, moments = state["param_groups"], state["state"]
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups) or not isinstance(moments, dict):
        raise UserError(f"optimizer: expected {len(optimizer.param_groups)} groups of parameters and their moments")
    begin = 0
    for group, expected in zip(groups, optimizer.param_groups, strict=True):
        numbers = list(range(begin, begin + len(expected["params"])))
        begin += len(numbers)
        _check_names("optimizer, param_groups", group, ("params", "lr", "lr_factor", "betas", "eps", "weight_decay"))
        betas = group["betas"]
        if group["params"] != numbers or not all(map(_is_number, (group[name] for name in ("lr", "lr_factor", "eps")))):
            raise UserError("optimizer: its groups are not those of this policy's parameters")
        if not isinstance(betas, list | tuple) or len(betas) != 2 or not all(map(_is_number, betas)):
            raise UserError(f"optimizer: betas are {shown(betas)}, expected two numbers")
        if group["weight_decay"] != expected["weight_decay"] or group.get("amsgrad") or group.get("maximize"):
            raise UserError("optimizer: it is another kind of Adam")
        for number, parameter in zip(numbers, expected["params"], strict=True):
            if moments and number not in moments:
                raise UserError(f"optimizer: the moments of parameter {number} are missing")
            if moments:
                _check_names(f"optimizer, parameter {number}", moments[number], ("step", "exp_avg", "exp_avg_sq"))
                for name in ("exp_avg", "exp_avg_sq"):
                    _check_tensor(f"optimizer, parameter {number}, {name}", moments[number][name], parameter)
                step = moments[number]["step"]
                if getattr(step, "numel", lambda: 0)() != 1 or not 0 <= float(step) < LARGEST_INT:
                    raise UserError(f"optimizer, parameter {number}: step is {shown(step)}")


def _check_names(where: str, state: Any, names: Iterable[str]) -> None:
    if not isinstance(state, dict):
        raise UserError(f"{where} is no dict but a {type(state).__name__}")
    missing = [name for name in names if name not in state]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")


def _check_tensor(where: str, tensor: Any, expected: "torch.Tensor") -> None:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise UserError(f"{where} is no tensor but a {type(tensor).__name__}")
    checkpoints.check_tensors({"it": tensor}, where)
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        raise UserError(f"{where} is {_kind(tensor)}, expected {_kind(expected)}")
    if not tensor.isfinite().all():
        raise UserError(f"{where} holds something other than finite numbers")


def _kind(tensor: "torch.Tensor") -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= LARGEST_INT


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
