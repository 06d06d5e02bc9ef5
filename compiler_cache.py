"""Where numba keeps compiled code: import this before decorating a function with `@njit(cache=True)`."""

import functools
import hashlib
import os
import sys
from pathlib import Path

from artifacts import cache_folder

HERE = Path(__file__).parent


def _own_folder() -> Path:
    """Return a folder of its own for each state of the compiled sources: numba's cache notices a change in the file of
    a function, but not in the files of the functions that it calls."""
    digest = hashlib.sha256()
    for path in [HERE / "policy_kernels.py", *sorted((HERE / "fast_babyai").glob("*.py"))]:
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
