"""Files: where the cache lies, and writes that leave the old file or the new one, whatever happens."""

import contextlib
import datetime
import errno
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from basics.errors import UserError, warn

_ABANDONED_AFTER = 60.0  # seconds without a write until a temporary file is what a killed process left behind
_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32]
_TEMPORARY = re.compile(r"\..+\.(?:(?P<host>[A-Za-z0-9]*)-)?(?P<process>\d+)-[0-9a-f]+\.tmp")


def cache_folder() -> Path:
    """Return the user's cache folder for this program: $RL_MOP_CACHE, or rl-mop in $XDG_CACHE_HOME or ~/.cache.

    Where that cannot be used (no home, no right to write there), it is a folder of the user's own for temporary files,
    with one warning. What is found is noted in $RL_MOP_CACHE, so that processes started from here agree.
    """
    named = os.environ.get("RL_MOP_CACHE")
    if named and named in _usable:
        return Path(named)
    folder = _wanted_cache_folder(named)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        unusable, folder = folder, temporary_cache_folder()
        warn(
            f"the cache folder {unusable} cannot be used ({error.strerror}): using {folder}; the environment variable"
            " RL_MOP_CACHE names another one"
        )
    os.environ["RL_MOP_CACHE"] = str(folder)
    _usable.add(str(folder))
    return folder


_usable: set[str] = set()


def _wanted_cache_folder(named: str | None) -> Path:
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(xdg) if os.path.isabs(xdg) else Path(os.path.expanduser("~"), ".cache")  # as the XDG standard has it
    return Path(os.path.abspath(base / "rl-mop")) if base.is_absolute() else Path("/nonexistent/.cache/rl-mop")


def temporary_cache_folder() -> Path:
    """Return a folder among the temporary files that is the user's own: the same one every time where that can be."""
    folder = Path(tempfile.gettempdir(), f"rl-mop-{os.geteuid()}")
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if is_private(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix="rl-mop-"))


def is_private(path: Path) -> bool:
    """Tell whether `path` belongs to this user, is no link, and nobody else may write to it."""
    state = os.lstat(path)
    return state.st_uid == os.geteuid() and not stat.S_ISLNK(state.st_mode) and not state.st_mode & 0o022


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
    temporary = target.with_name(f".{target.name[:100]}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    text: dict = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        require_regular_file(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        try:
            with open(temporary, mode.replace("w", "x"), **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _take_over_rights(target, temporary)
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise ArtifactError(path, f"cannot be written: {error.strerror or error}") from error


def require_regular_file(path: os.PathLike | str) -> None:
    """Raise an OSError where something other than a file (a folder, a pipe, a device) lies at `path`."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a file but a pipe, a socket or a device")


def _take_over_rights(target: Path, temporary: Path) -> None:
    """Give the new file the owner and the rights of the one that it replaces."""
    with contextlib.suppress(FileNotFoundError):
        state = os.stat(target)
        with contextlib.suppress(OSError):  # only root can give a file away
            os.chown(temporary, state.st_uid, state.st_gid)
        os.chmod(temporary, stat.S_IMODE(state.st_mode) & 0o777)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left in `folder`: temporary files whose process is gone, or that are old."""
    for name in os.listdir(folder):
        match = _TEMPORARY.fullmatch(name)
        if match is None:
            continue
        with contextlib.suppress(OSError):
            age = time.time() - os.lstat(folder / name).st_mtime
            if age > _ABANDONED_AFTER or (match["host"] == _HOST and not _is_running(int(match["process"]))):
                os.unlink(folder / name)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


def read_bytes(path: os.PathLike | str, largest: int | None = None) -> bytes:
    """Return a file's content.

    Raises:
        ArtifactError: no such file, not a file, one of more than `largest` bytes, or it cannot be read.
    """
    try:
        require_regular_file(path)  # a pipe would be waited for
        if largest is not None and (size := os.stat(path).st_size) > largest:
            raise ArtifactError(path, f"its {size:,} bytes are more than the {largest:,} that are read")
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(path, reading_problem(error)) from error
    except ValueError as error:  # a NUL in the path
        raise ArtifactError(repr(str(path)), f"no path: {error}") from error


def reading_problem(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    return f"cannot be read: {error.strerror or error}"


def timestamp() -> str:
    """Return the time now, as `evaluated_at` has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
