"""Parts of your own: files of the folder `extensions/` in the working folder, named by the key `extensions`.

    # extensions/mlp_expert.py                         python train_mop.py --extensions mlp_expert --expert_kind mlp
    from basics.extensions import register

    @register("expert", "mlp")
    class MLPExpert(nn.Module): ...

A checkpoint's config says which files it needs, by name: only files of that folder are ever loaded. docs/extending.md
has a recipe for each kind of part.
"""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from basics.errors import UserError, did_you_mean

FOLDER = Path("extensions")  # in the working folder
KINDS = {
    "expert": "class(size, hidden_size), see mixture_of_experts.Expert",
    "router": "class(size, hidden_size, num_experts), see mixture_of_experts.Router",
    "loss": "function(output, rollout, config) that returns what to add to the loss",
    "metric": "function(output, rollout, config) that returns a number for metrics.csv",
    "column": "function(routing_data) that returns a number for evaluation_results.csv",
}
Part = TypeVar("Part")


class _Registered(NamedTuple):
    part: Any
    file: str


_parts: dict[tuple[str, str], _Registered] = {}


def register(kind: str, name: str) -> Callable[[Part], Part]:
    """Return a decorator that makes a class or function known under a name; `KINDS` tells what it has to be."""
    if kind not in KINDS:
        raise ValueError(f"no such kind of part: {kind!r}; there are {', '.join(KINDS)}")

    def add(part: Part) -> Part:
        _parts[kind, name] = _Registered(part, part.__module__.removeprefix("extensions."))
        return part

    return add


def load_extensions(names: str | None) -> list[str]:
    """Load extensions, each once, and return their names.

    Args:
        names: comma-separated, as the key `extensions` has them.

    Raises:
        UserError: there is no such file, or it cannot be loaded.
    """
    files = [] if names is None else [name.strip() for name in names.split(",")]
    for name in files:
        if f"extensions.{name}" not in sys.modules:
            _load(name)
    return files


def _load(name: str) -> None:
    path = FOLDER / f"{name}.py"
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or not path.is_file():
        near = did_you_mean(name, [other.stem for other in FOLDER.glob("*.py")])
        raise UserError(f"extensions: there is no file {FOLDER}/{name}.py in {Path.cwd()}.{near}")
    spec = importlib.util.spec_from_file_location(f"extensions.{name}", path)
    assert spec is not None and spec.loader is not None  # as for every file that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise UserError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error


def registered(kind: str, names: str | None) -> dict[str, Any]:
    """Return the parts of a kind, by their names, that these extensions have registered."""
    files = load_extensions(names)
    return {name: there.part for (of_kind, name), there in _parts.items() if of_kind == kind and there.file in files}


def choose(kind: str, name: str, own: dict[str, Any], names: str | None) -> Any:
    """Return the part called `name`: one of the program's `own`, or of these extensions.

    Raises:
        UserError: there is none.
    """
    there = own | registered(kind, names)
    if name not in there:
        raise UserError(
            f"{kind}_kind is {name!r}, but there {'is' if len(there) == 1 else 'are'} only {', '.join(there)}."
            f"{did_you_mean(name, there)} Which file of {FOLDER}/ has it is for --extensions to say"
        )
    return there[name]
