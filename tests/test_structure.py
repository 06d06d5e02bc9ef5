"""Who imports whom: data flows one way, and nothing is compiled in that the digest of compiled code does not see."""

import ast
import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from basics.compiler_cache import COMPILED

ROOT = Path(__file__).parent.parent
PACKAGES = ("basics", "fast_babyai", "policy", "training", "results", "plotting", "browser")
FILES = sorted([*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))])
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
SCRIPTS = {
    "train", "train_mop", "eval_mop", "batch_eval", "modal_app", "study", "export_demos", "routing_viz",
    "cross_task_viz", "report", "pathways",
}  # fmt: skip


@functools.cache
def imports(module, whole=False):
    """The modules of this project that a module imports at its top level or, if `whole`, anywhere."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if whole else top_level(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found & MODULES.keys()


def top_level(tree):
    """The statements that run when a module is imported, those for type checkers left out."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node


def reachable(module):
    seen, waiting = set(), [module]
    while waiting:
        for other in imports(waiting.pop()) - seen:
            seen.add(other)
            waiting.append(other)
    return seen


@pytest.mark.parametrize("module", sorted(MODULES.keys() - SCRIPTS))
def test_no_module_imports_itself_in_a_circle_or_a_script(module):
    assert module not in reachable(module)
    assert not imports(module, whole=True) & SCRIPTS


@pytest.mark.parametrize("script", sorted(SCRIPTS - {"routing_viz", "cross_task_viz"}))
def test_help_is_shown_without_waiting_for_pytorch(script):
    program = f"""
import runpy, sys
sys.argv = ["{script}.py", "--help"]
try:
    runpy.run_path("{script}.py", run_name="__main__")
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules and "numba" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


def test_the_plots_know_no_environment_and_the_environment_nothing_but_basics():
    for module in MODULES:
        package = module.split(".")[0]
        known = {other.split(".")[0] for other in imports(module, whole=True)}
        if package == "plotting" or module == "plotting_utils":
            assert known <= {"plotting", "plotting_utils", "results", "basics"}, module
        if package == "fast_babyai":
            assert known <= {"fast_babyai", "basics"}, module
        if package == "basics":
            assert known <= {"basics"}, module
    assert not imports("fast_babyai.rules", whole=True)


def test_what_is_compiled_takes_constants_only_from_what_the_digest_covers():
    compiled = tuple(package.replace("/", ".") for package in COMPILED)
    for module, path in MODULES.items():
        if "\n@njit" in path.read_text(encoding="utf-8"):
            assert module.startswith(compiled), f"{module} has compiled functions: COMPILED must cover it"
            others = {other for other in imports(module, whole=True) if not other.startswith(compiled)}
            assert others <= {"basics", "basics.compiler_cache", "basics.errors"}, module


def test_loops_over_numbers_are_compiled():
    """Without the compiler's decorator a loop is as right, and a hundred times slower: no other test would notice."""
    for path in (ROOT / "policy" / "compiled").glob("*.py"):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            inside = list(ast.walk(function))
            loops = [node.iter for node in inside if isinstance(node, ast.For) and isinstance(node.iter, ast.Call)]
            is_loop = any(isinstance(loop.func, ast.Name) and loop.func.id == "range" for loop in loops)
            writes_code = any(isinstance(node, ast.FunctionDef) and node.decorator_list for node in inside)
            if isinstance(function, ast.FunctionDef) and is_loop:
                assert writes_code, f"{path.name}: {function.name} is not compiled"


def test_a_changed_constant_is_compiled_in(tmp_path):
    """The compiled bot gives up where minigrid's does, also after PLAN_LIMIT was changed and code compiled before."""
    for name in ("basics", "fast_babyai", "policy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    rules = tmp_path / "fast_babyai" / "rules.py"
    program = "from fast_babyai import bot; from basics.compiler_cache import FOLDER; print(bot.PLAN_LIMIT, FOLDER)"

    def run():
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    text = rules.read_text(encoding="utf-8")
    limit, folder = run()
    assert "PLAN_LIMIT = 1000 " in text and limit == "1000"
    rules.write_text(text.replace("PLAN_LIMIT = 1000 ", "PLAN_LIMIT = 0 "), encoding="utf-8")
    changed_limit, changed_folder = run()
    assert changed_limit == "0" and changed_folder != folder, "code with the old limit would go on being used"
    rules.write_text(text, encoding="utf-8")
    assert run() == ["1000", folder]
