"""Homes that are not as expected: where caches go when there is none, and what of a cache is not to be trusted."""

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ("HOME", "RL_MOP_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TMPDIR")
SHOW = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from basics.files import cache_folder
first = cache_folder()
import os; os.chdir("/")
assert cache_folder() == first and first.is_dir() and os.access(first, os.W_OK)
print(first)
"""
COMPILED = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from basics.compiler_cache import FOLDER; print(FOLDER)"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def run(code, cwd, user=None, **environment):
    """Run `code` in a process; return its output and its errors."""
    others = {name: value for name, value in os.environ.items() if name not in NAMES}
    process = subprocess.run(
        [sys.executable, "-c", code], env=others | environment, cwd=cwd, capture_output=True, text=True, user=user
    )
    assert process.returncode == 0, process.stderr
    return Path(process.stdout.strip()), process.stderr


def test_the_cache_lies_where_the_user_says(tmp_path):
    home = tmp_path / "home"
    work = tmp_path / "work"
    work.mkdir()
    default = home / ".cache" / "rl-mop"
    for environment, expected in [
        ({}, default),
        ({"RL_MOP_CACHE": ""}, default),
        ({"XDG_CACHE_HOME": "relative"}, default),  # as the standard has it
        ({"XDG_CACHE_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg" / "rl-mop"),
        ({"RL_MOP_CACHE": "relative"}, work / "relative"),
        ({"RL_MOP_CACHE": "~/mine"}, home / "mine"),
    ]:
        assert run(SHOW, work, HOME=str(home), **environment) == (expected, ""), environment
    assert os.listdir(work) == ["relative"]


@pytest.mark.parametrize("setting", [{"HOME": "/dev/null"}, {"HOME": "/proc/none"}, {"RL_MOP_CACHE": "/dev/null/a"}])
def test_without_a_usable_home_caches_go_to_a_private_temporary_folder(tmp_path, setting):
    folder, errors = run(SHOW, tmp_path, TMPDIR=str(tmp_path), **setting)
    assert folder.parent == tmp_path and errors.count("\n") == 1
    assert errors.startswith("warning:") and "RL_MOP_CACHE names another one" in errors
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert run(SHOW, tmp_path, TMPDIR=str(tmp_path), **setting)[0] == folder  # found again
    folder.chmod(0o777)  # now anyone may have put anything there
    assert run(SHOW, tmp_path, TMPDIR=str(tmp_path), **setting)[0] != folder


@needs_root
def test_a_user_without_a_name_and_a_home_and_a_cache_of_another_user(tmp_path):
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    try:
        subprocess.run([sys.executable, "-c", ""], user=12345, check=True, capture_output=True, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this Python is not for every user")
    folder, errors = run(SHOW, "/", user=12345, TMPDIR=str(tmp_path))
    assert folder.parent == tmp_path and "RL_MOP_CACHE" in errors
    theirs = tmp_path / "theirs"
    run(COMPILED, "/", RL_MOP_CACHE=str(theirs))
    folder, errors = run(COMPILED, "/", user=12345, TMPDIR=str(tmp_path), RL_MOP_CACHE=str(theirs))
    assert theirs not in folder.parents and "RL_MOP_CACHE" in errors


def test_compiled_code_goes_where_numba_was_told(tmp_path):
    mine = tmp_path / "mine"
    folder, errors = run(COMPILED, tmp_path, NUMBA_CACHE_DIR=str(mine), RL_MOP_CACHE=str(tmp_path / "cache"))
    assert folder.parent == mine and errors == ""
    again, _ = run(COMPILED, tmp_path, NUMBA_CACHE_DIR=str(folder), RL_MOP_CACHE=str(tmp_path / "cache"))
    assert again == folder  # as a process sees it that was started by ours


def test_compiled_code_that_others_could_write_is_not_executed(tmp_path):
    cache = {"RL_MOP_CACHE": str(tmp_path / "cache")}
    folder, _ = run(COMPILED, tmp_path, **cache)
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    planted = folder / "planted.nbi"
    planted.write_bytes(pickle.dumps("planted"))
    assert run(COMPILED, tmp_path, **cache) == (folder, "") and planted.exists()
    folder.chmod(0o777)
    assert run(COMPILED, tmp_path, **cache) == (folder, "") and not planted.exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    folder, errors = run(COMPILED, tmp_path, NUMBA_CACHE_DIR=str(shared), TMPDIR=str(tmp_path), **cache)
    assert shared not in folder.parents and "is not to be trusted" in errors


@needs_root
def test_compiled_code_of_another_user_is_not_executed(tmp_path):
    cache = {"RL_MOP_CACHE": str(tmp_path / "cache")}
    folder, _ = run(COMPILED, tmp_path, **cache)
    os.chown(folder.parent, 12345, 12345)
    elsewhere, errors = run(COMPILED, tmp_path, TMPDIR=str(tmp_path), **cache)
    assert folder != elsewhere and "is not to be trusted" in errors


def test_compiling_is_said_whenever_it_takes_long(tmp_path):
    code = """
import sys; sys.path.insert(0, {root!r})
from basics import compiler_cache
compiler_cache.PATIENCE = {patience}
compiler_cache.announce()
import numba
@numba.njit(cache=True)
def inner(number):
    return 2 * number
@numba.njit(cache=True)
def outer(number):
    return inner(number) + 1
assert outer(3) == 7
"""
    module = tmp_path / "module.py"
    run_module = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import module"
    for cache, patience, said in (("a", 0, True), ("a", 0, False), ("b", 1000, False)):  # new; in the cache; at once
        module.write_text(code.format(root=str(ROOT), patience=patience))
        _, errors = run(run_module, tmp_path, RL_MOP_CACHE=str(tmp_path / cache))
        assert ("compiling module.outer, once for this version of the code" in errors) == said, errors
        assert errors.count("compiling") == said


def test_compiled_code_that_was_cut_short_is_compiled_again(tmp_path):
    code = """
import sys; sys.path.insert(0, {root!r})
import basics.compiler_cache
import numba
@numba.njit(cache=True)
def twice(number):
    return 2 * number
assert twice(3) == 6
print(sum(twice.stats.cache_hits.values()))
"""
    module = tmp_path / "module.py"
    module.write_text(code.format(root=str(ROOT)))
    run_module = f"import runpy; runpy.run_path({str(module)!r})"
    cache = {"RL_MOP_CACHE": str(tmp_path / "cache")}
    assert run(run_module, tmp_path, **cache)[0] == Path("0")
    assert run(run_module, tmp_path, **cache)[0] == Path("1")
    for kind in ("*.nbi", "*.nbc"):
        for damage in (lambda content: b"", lambda content: content[: len(content) // 2], lambda content: bytes(99)):
            (path,) = (tmp_path / "cache").rglob(kind)
            path.write_bytes(damage(path.read_bytes()))
            assert run(run_module, tmp_path, **cache)[0] == Path("0")
            assert run(run_module, tmp_path, **cache)[0] == Path("1")
