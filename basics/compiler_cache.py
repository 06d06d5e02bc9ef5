"""Where numba keeps compiled code: import this before decorating a function with `@njit(cache=True)`."""

import contextlib
import errno
import functools
import hashlib
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, cast

from basics.errors import warn
from basics.files import cache_folder, is_private, temporary_cache_folder

ROOT = Path(__file__).parent.parent
COMPILED = ("fast_babyai", "policy/compiled")  # all compiled functions, and all constants that are compiled in
DEPENDENCIES = ("numba", "numpy", "minigrid")
PATIENCE, PATIENCE_LATER = 2.0, 20.0  # seconds of compiling before something is said, first and then
Arguments = ParamSpec("Arguments")


def _digest() -> str:
    """Return a name for each state of the compiled packages: numba's cache notices a change in the file of
    a function, but not in those of the functions that it calls or of the constants that it compiles in."""
    digest = hashlib.sha256(repr([version(name) for name in DEPENDENCIES]).encode())
    for path in sorted(path for package in COMPILED for path in (ROOT / package).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _own_folder(digest: str) -> Path:
    """Return the folder for compiled code, in $NUMBA_CACHE_DIR where the user has set it.

    numba executes what lies there, so it must be this user's, and nobody else may write to it.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named and Path(named).name == digest:
        folder = Path(named)  # a process of ours has started this one
    else:
        folder = (Path(os.path.abspath(named)) if named else cache_folder() / "numba") / digest
    try:
        _make_private(folder)
    except OSError as error:
        unusable, folder = folder, temporary_cache_folder() / "numba" / digest
        _make_private(folder)
        warn(
            f"compiled code is kept in {folder}, as {unusable} is not to be trusted or cannot be used"
            f" ({error.strerror or error}); the environment variable RL_MOP_CACHE names another cache folder"
        )
    _remove_damaged(folder)
    return folder


def _make_private(folder: Path) -> None:
    """Make a folder that only this user may write to; what others could have written to is emptied first.

    Raises:
        OSError: it is not this user's, or cannot be made.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.parent == cache_folder() / "numba" and os.lstat(folder.parent).st_uid == os.geteuid():
        os.chmod(folder.parent, 0o700)  # it was made with the rights that the user gives to new folders
    if not is_private(folder.parent):
        raise PermissionError(errno.EPERM, f"others than this user may write to {folder.parent}")
    if not is_private(folder):
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _remove_damaged(folder: Path) -> None:
    """Remove files that are empty or cut short, as after a power cut: numba would fail on them at every start."""
    for path in [*folder.rglob("*.nbi"), *folder.rglob("*.nbc")]:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0 or file.seek(-1, os.SEEK_END) < 0 or file.read(1) != pickle.STOP:
                path.unlink()


FOLDER = _own_folder(_digest())
IS_COLD = not any(FOLDER.rglob("*.nbi"))
os.environ["NUMBA_CACHE_DIR"] = str(FOLDER)
if "numba" in sys.modules:
    sys.modules["numba"].config.CACHE_DIR = str(FOLDER)


def intrinsic(define: Callable[Concatenate[Any, Arguments], Any]) -> Callable[Arguments, Any]:
    """numba's decorator for functions that write machine code: compiled functions call them without the typing context
    that comes first in the definition. This one says so to type checkers."""
    from numba.extending import intrinsic as of_numba  # takes a second to import

    return cast(Callable[Arguments, Any], of_numba(define))


@functools.cache
def announce() -> None:
    """From now on, say what is being compiled whenever that takes longer than a moment."""
    from numba.core import event

    class Announcer(_Announcer, event.Listener):
        pass

    event.register("numba:compile", Announcer())  # of what is not in the cache; also for functions within functions


class _Announcer:
    """Listens to numba, and says what it compiles once it has compiled for PATIENCE seconds, and then now and again."""

    def __init__(self):
        self.lock = threading.Lock()  # the timer runs in a thread of its own
        self.timer: threading.Timer | None = None
        self.depth = 0  # of functions that are compiled for others
        self.unsaid = 0.0  # seconds of compiling since something was said
        self.patience, self.began, self.name = PATIENCE, 0.0, ""

    def on_start(self, event) -> None:
        with self.lock:
            self.depth += 1
            if self.depth == 1:
                function = event.data["dispatcher"].py_func
                self.name = f"{function.__module__}.{function.__qualname__}"
                self.began = time.monotonic()
                self._wait(self.patience - self.unsaid)

    def on_end(self, event) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0 and self.timer is not None:
                self.timer.cancel()
                self.unsaid += time.monotonic() - self.began

    def _wait(self, seconds: float) -> None:
        self.timer = threading.Timer(max(0.0, seconds), self._say)
        self.timer.daemon = True
        self.timer.start()

    def _say(self) -> None:
        with self.lock:
            if self.depth == 0:
                return
            start = "\r\033[K" if sys.stderr.isatty() else ""  # in the place of a progress bar, which comes back below
            first = self.patience == PATIENCE
            about = ", once for this version of the code; this can take a minute or two" if first else " (still)"
            with contextlib.suppress(OSError):  # a closed pipe or terminal
                print(f"{start}compiling {self.name}{about}", file=sys.stderr, flush=True)
            self.unsaid, self.began, self.patience = 0.0, time.monotonic(), PATIENCE_LATER
            self._wait(self.patience)
