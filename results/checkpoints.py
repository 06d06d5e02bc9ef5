"""Checkpoint files: written whole, read without ever executing what is in them.

PyTorch is imported by the functions that need it, so that deciding what is left to do takes no time.
"""

import io
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable

from basics.files import ArtifactError, atomic_write, read_bytes

_ZIP = b"PK"
_DAMAGED_CHECKPOINT = "damaged or cut short: copy it again, or train again"


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


def load_checkpoint(
    path: os.PathLike | str, required: Iterable[str] = ("policy_state_dict", "config", "lang_proj_state_dict")
) -> dict:
    """Read a checkpoint onto the CPU. Only tensors and plain values are read; nothing in the file is ever executed.

    Raises:
        ArtifactError: no such file, damaged, not a checkpoint, or one that holds code; the message says which.
    """
    import torch

    content = read_bytes(path)
    if content.startswith(_ZIP) and not _is_whole_zip(content):
        raise ArtifactError(path, _DAMAGED_CHECKPOINT)
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickle protocols; the error says all there is to say
            checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail with any exception there is
        raise ArtifactError(path, _checkpoint_problem(content, error)) from error
    if not isinstance(checkpoint, dict):
        raise ArtifactError(path, f"not a checkpoint of this project: it holds a {type(checkpoint).__name__}")
    missing = [key for key in required if key not in checkpoint]
    if missing:
        raise ArtifactError(path, f"not a checkpoint of this project: it lacks {', '.join(missing)}")
    if "config" in checkpoint and not isinstance(checkpoint["config"], dict):
        raise ArtifactError(path, "not a checkpoint of this project: its config is not a dict")
    return checkpoint


def _is_whole_zip(content: bytes) -> bool:
    """Tell whether a zip archive (a checkpoint is one) agrees with its own checksums; PyTorch does not look at them."""
    try:
        return zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, zlib.error):
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
