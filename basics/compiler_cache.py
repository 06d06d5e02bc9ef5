"""Where numba keeps compiled code: import this before decorating a function with `@njit(cache=True)`."""

import functools
import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

from basics.files import cache_folder

ROOT = Path(__file__).parent.parent
COMPILED = ("fast_babyai", "policy")  # packages; their compiled functions use constants of these and of no others
DEPENDENCIES = ("numba", "numpy", "minigrid")


def _own_folder() -> Path:
    """Return a folder of its own for each state of the compiled packages: numba's cache notices a change in the file of
    a function, but not in those of the functions that it calls or of the constants that it compiles in."""
    digest = hashlib.sha256(repr([version(name) for name in DEPENDENCIES]).encode())
    for path in sorted(path for package in COMPILED for path in (ROOT / package).rglob("*.py")):
        digest.update(path.read_bytes())
    return cache_folder() / "numba" / digest.hexdigest()[:16]


FOLDER = _own_folder()
IS_COLD = not any(FOLDER.rglob("*.nbi"))
os.environ["NUMBA_CACHE_DIR"] = str(FOLDER)
if "numba" in sys.modules:
    sys.modules["numba"].config.CACHE_DIR = str(FOLDER)


@functools.cache
def announce() -> None:
    """Say so when compiled code has to be made first: it takes a while, once."""
    if IS_COLD:
        print("compiling, once for this version of the code; this takes a minute or two", file=sys.stderr, flush=True)
