"""Files: where the cache lies, and writes that leave the old file or the new one, whatever happens."""

import contextlib
import datetime
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from basics.errors import UserError

_ABANDONED_AFTER = 60.0  # seconds without a write until a temporary file is what a killed process left behind


def cache_folder() -> Path:
    """Return the user's cache folder for this program: $RL_MOP_CACHE, or rl-mop in $XDG_CACHE_HOME or ~/.cache."""
    if "RL_MOP_CACHE" in os.environ:
        return Path(os.environ["RL_MOP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rl-mop"


class ArtifactError(UserError):
    """A file that cannot be read or written; the message names its path and the reason."""

    def __init__(self, path: os.PathLike | str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self):  # worker processes send it home
        return ArtifactError, (self.path, self.reason)


@contextlib.contextmanager
def atomic_write(path: os.PathLike | str, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` for writing; it becomes `path` when the block ends without an exception.

    Args:
        path: the target; missing folders are made.
        mode: "w" (UTF-8 text, newlines as given) or "wb".

    Raises:
        ArtifactError: the file cannot be written (full disk, no permission); what was there before stays.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    text: dict = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        try:
            with open(temporary, mode.replace("w", "x"), **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(path, f"cannot be written: {error.strerror or error}") from error


def _remove_abandoned(target: Path) -> None:
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER:
                leftover.unlink()


def read_bytes(path: os.PathLike | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(path, reading_problem(error)) from error


def reading_problem(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    return f"cannot be read: {error.strerror or error}"


def timestamp() -> str:
    """Return the time now, as `evaluated_at` has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
