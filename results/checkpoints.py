"""Checkpoint files: written whole, read without ever executing or believing what is in them.

`load_checkpoint` returns only what has been checked: tensors that are as large as they say, a config whose values are
such as config.yaml allows. Whether the weights fit the config is for `check_shapes` to say, before a policy is built.

PyTorch is imported by the functions that need it, so that deciding what is left to do takes no time.
"""

import functools
import io
import os
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from basics.config import Key, is_name, is_text, load_keys, shown
from basics.errors import UserError, warn
from basics.files import ArtifactError, atomic_write, read_bytes, require_regular_file
from results.paths import CheckpointRef

if TYPE_CHECKING:
    import torch

_ZIP = b"PK"
_DAMAGED_CHECKPOINT = "damaged or cut short: copy it again, or train again"
_FOREIGN = "not a checkpoint of this project"
MOST_COMPRESSED = 2  # times larger inside than outside: weights are nearly random numbers, and compress by a tenth
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, zlib.error, RuntimeError)
LARGEST_CHECKPOINT = 4 << 30  # bytes
DERIVED_TYPES = {"num_actions": "int in [7, 7]", "input_dim": "int >= 1"}  # of keys that config.yaml does not have


def save_checkpoint(path: os.PathLike | str, payload: dict) -> None:
    """Write a checkpoint: tensors, plain values, and dicts and lists of them.

    Raises:
        ArtifactError: the file cannot be written; what was there before stays.
    """
    import torch

    buffer = io.BytesIO()  # a disk that is full then fails as disks do; torch's own error would name its archive
    torch.save(payload, buffer)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getbuffer())


def is_mixture(path: os.PathLike | str) -> bool:
    """Tell whether a checkpoint's config names experts, without PyTorch; what cannot be read counts, to be named."""
    values = _pickled_values(path)
    return values is None or b"expert_hidden_sizes" in values


def trained_tasks(path: os.PathLike | str) -> list[str] | None:
    """Return the set of tasks that a checkpoint's config names, as a rule without PyTorch; None where there is no set,
    or the file cannot be read."""
    _, key, rest = (_pickled_values(path) or b"").partition(b"X\x05\0\0\0tasks")  # as pickle's protocol 2 writes a text
    if not key:
        return None
    names: list[str] = []
    try:
        for opcode, value, _ in pickletools.genops(rest):  # tells what stands there, and executes nothing
            if opcode.name == "BINUNICODE":
                names.append(str(value))
            elif opcode.name in ("NONE", "APPEND", "APPENDS"):
                return names if names and all(map(is_name, names)) else None
            elif opcode.name not in ("BINPUT", "LONG_BINPUT", "EMPTY_LIST", "MARK"):
                break
        return load_checkpoint(path)["config"].get("tasks")  # written by another program, in other words
    except (ValueError, UserError):
        return None


def on_each_task(refs: Iterable[CheckpointRef], tasks: Sequence[str] | None = None) -> list[CheckpointRef]:
    """Return checkpoints once for each task that they are evaluated on: the one that they were trained on, each one of
    their set, or those of `tasks`."""
    found = []
    for ref in refs:
        for task in tasks or trained_tasks(ref.path) or [ref.task_id]:
            found.append(ref if task == ref.task_id else replace(ref, evaluated_on=task))
    return found


def _pickled_values(path: os.PathLike | str) -> bytes | None:
    """Return the pickle in a checkpoint, where all that is no tensor stands, as it is; None where it cannot be read."""
    try:
        require_regular_file(path)
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    except (OSError, StopIteration, UserError, *_ZIP_ERRORS):
        return None


def load_checkpoint(
    path: os.PathLike | str, required: Iterable[str] = ("policy_state_dict", "config", "lang_proj_state_dict")
) -> dict:
    """Read a checkpoint onto the CPU. Only tensors and plain values are read; nothing in the file is ever executed.

    Raises:
        ArtifactError: no such file, damaged, not a checkpoint, or one that holds code; the message says which.
    """
    import torch

    content = read_bytes(path, LARGEST_CHECKPOINT)
    if content.startswith(_ZIP):
        _check_archive(path, content)
    try:
        # warnings are of pickle protocols; the error says all there is to say
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_numpy_stand_ins()):
            checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail with any exception there is
        raise ArtifactError(path, _checkpoint_problem(content, error)) from error
    if not isinstance(checkpoint, dict):
        raise ArtifactError(path, f"{_FOREIGN}: it holds a {type(checkpoint).__name__}")
    missing = [key for key in required if key not in checkpoint]
    if missing:
        raise ArtifactError(path, f"{_FOREIGN}: it lacks {', '.join(missing)}")
    try:
        for name in ("policy_state_dict", "lang_proj_state_dict", "words_state_dict"):
            if name in checkpoint:
                check_tensors(checkpoint[name], name)
                checkpoint[name] = dict(checkpoint[name])  # without the attributes that a pickle may give a dict
        if "lang_proj_state_dict" in checkpoint:
            _check_projection(checkpoint["lang_proj_state_dict"])
        if "config" in checkpoint:
            check_checkpoint_config(checkpoint["config"])
    except UserError as error:
        raise ArtifactError(path, f"{_FOREIGN}: {error}") from None
    if "config" in checkpoint and "policy_state_dict" in checkpoint:
        _read_as_trained(checkpoint)
    return checkpoint


def check_tensors(tensors: Any, name: str) -> None:
    """Raise a UserError unless `tensors` is a dict of text to ordinary tensors of numbers that are all really there."""
    import torch

    if not isinstance(tensors, dict):
        raise UserError(f"its {name} is not a dict but a {type(tensors).__name__}")
    for key, tensor in tensors.items():
        if not is_text(key) or not isinstance(tensor, torch.Tensor):
            raise UserError(f"its {name} holds more than tensors: {shown(key)} is a {type(tensor).__name__}")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.dtype.is_complex:
            raise UserError(f"its {name} holds a tensor of another kind than dense real numbers: {key}")
        if tensor.is_meta or tensor.nelement() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"its {name} holds a tensor that repeats its numbers instead of having them: {key}")


def _check_projection(tensors: Mapping[str, "torch.Tensor"]) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    weight = shapes.get("weight", ())
    if len(weight) != 2 or shapes != {"weight": weight, "bias": weight[:1]}:
        raise UserError(
            f"its lang_proj_state_dict has {shown(shapes)}, expected weight [lang_dim, embed_dim], bias [lang_dim]"
        )


def check_checkpoint_config(config: Any) -> None:
    """Raise a UserError unless `config` is a dict whose values are such as config.yaml allows; it may lack keys, and
    have keys that nothing here reads."""
    if not isinstance(config, dict):
        raise UserError(f"its config is not a dict but a {type(config).__name__}")
    keys = load_keys() | {name: Key(name, None, kind, "") for name, kind in DERIVED_TYPES.items()}
    for name, value in config.items():
        if not is_text(name):
            raise UserError(f"its config has the key {shown(name)}")
        if name in keys:
            try:
                keys[name].check(value)
            except UserError as error:
                raise UserError(f"its config is not to be used: {error}") from None


def check_shapes(tensors: Mapping[str, "torch.Tensor"], expected: Mapping[str, "torch.Tensor"]) -> None:
    """Raise a UserError unless the weights `tensors` have the names, shapes and kind of numbers of `expected`.

    `expected` may be on torch's `meta` device, where tensors have a shape and need no memory: so a policy of any size
    can be compared with what a file holds before it is built.
    """
    for problem, names in (
        ("they lack", expected.keys() - tensors.keys()),
        ("they also hold", tensors.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"the weights do not fit the config they came with: {problem} {min(names)}{more}")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise UserError(
                f"the weights do not fit the config they came with: {name} is {list(tensors[name].shape)},"
                f" expected {list(tensor.shape)}"
            )
        if not tensors[name].dtype.is_floating_point:
            raise UserError(f"the weights are no floating-point numbers: {name} is {tensors[name].dtype}")


# -------------------------------------------------------------------------------------------- of another, older trainer


def _read_as_trained(checkpoint: dict) -> None:
    """Let the weights of a checkpoint without `obs_encoding` apply to the pixels that they were trained on.

    This program has always written that key. Trainers of this kind that do not flatten the image [7, 7, 3] channels
    first (all types, then all colors, all states); here it is cell after cell.
    """
    config, weights = checkpoint["config"], checkpoint["policy_state_dict"]
    weight = weights.get("input_projection.weight")
    if "obs_encoding" in config or weight is None or weight.ndim != 2 or weight.shape[1] < 147:
        return
    _say_how_older_checkpoints_are_read()
    image = weight[:, :147].unflatten(1, (3, 7, 7)).permute(0, 2, 3, 1).flatten(1)
    weight = weight.clone()
    weight[:, :147] = image
    checkpoint["policy_state_dict"] = weights | {"input_projection.weight": weight}
    checkpoint["config"] = config | {"obs_encoding": "raw"}


@functools.cache
def _say_how_older_checkpoints_are_read() -> None:
    warn("a checkpoint without obs_encoding is read as older trainers made it: the image flattened channels first")


class _NumpyDtype:
    """Stands in for `numpy.dtype` in a checkpoint: which kind of number its scalars are."""

    def __init__(self, code: str, *_):
        if not re.fullmatch(r"[biuf][1248]", code):
            raise pickle.UnpicklingError(f"numpy scalars of the kind {code!r} are not read")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple):
        self.order = {"|": "=", "=": "=", "<": "<", ">": ">"}[state[1]]


def _numpy_scalar(dtype: _NumpyDtype, content: bytes | str):
    """Stands in for the function by which numpy's scalars are unpickled; returns a plain number."""
    letter = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"} | {
        "f2": "e", "f4": "f", "f8": "d"
    }  # fmt: skip
    content = content.encode("latin-1") if isinstance(content, str) else content
    return struct.unpack(dtype.order + letter[dtype.code], content)[0]


def _numpy_stand_ins() -> list:
    """Return what reads numpy's plain scalars, such as the `num_actions` of gymnasium's spaces: numbers, no code."""
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [(_NumpyDtype, "numpy.dtype"), *((_numpy_scalar, f"{module}.scalar") for module in modules)]


# ------------------------------------------------------------------------------------------------------------ damage


def _check_archive(path: os.PathLike | str, content: bytes) -> None:
    """Raise an ArtifactError unless a zip archive (a checkpoint is one) is whole, and hardly larger inside than out.

    PyTorch compresses nothing; `publish.py` does.
    """
    try:
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except _ZIP_ERRORS:
        members = []
    if sum(member.file_size for member in members) > MOST_COMPRESSED * len(content):
        raise ArtifactError(path, f"{_FOREIGN}: it is compressed as no weights can be")
    if not members or not _is_whole_zip(content):
        raise ArtifactError(path, _DAMAGED_CHECKPOINT)


def _is_whole_zip(content: bytes) -> bool:
    """Tell whether a zip archive agrees with its own checksums; PyTorch does not look at them."""
    try:
        return zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    except _ZIP_ERRORS:
        return False


def _checkpoint_problem(content: bytes, error: Exception) -> str:
    refused = re.search(r"nsupported (?:global: )?GLOBAL ([\w.]+)", str(error))
    if refused:
        return f"refused, and not executed: it holds the Python object {refused[1]}; only tensors and values are read"
    if not content:
        return "the file is empty"
    if content.startswith(_ZIP):
        return _DAMAGED_CHECKPOINT
    if content.startswith(b"\x80") and isinstance(error, pickle.UnpicklingError):
        return "refused, and not executed: a Python pickle, not a PyTorch checkpoint"
    return "not a PyTorch checkpoint"
