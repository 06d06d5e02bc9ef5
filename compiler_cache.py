"""Where numba keeps compiled code: import this before decorating a function with `@njit(cache=True)`."""

import hashlib
import os
import sys
from pathlib import Path

from artifacts import cache_folder

HERE = Path(__file__).parent


def _use_own_folder() -> None:
    """Keep it in a folder of its own for each state of the compiled sources: numba's cache notices a change in the file
    of a function, but not in the files of the functions that it calls."""
    digest = hashlib.sha256()
    for path in [HERE / "policy_kernels.py", *sorted((HERE / "fast_babyai").glob("*.py"))]:
        digest.update(path.read_bytes())
    folder = str(cache_folder() / "numba" / digest.hexdigest()[:16])
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder


_use_own_folder()
