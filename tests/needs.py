"""What some tests need that a machine may not have; `pytest` says at its start which of them it will skip."""

import os
import shutil

import pytest
import torch

CHROMIUM = shutil.which("chromium")

browser = pytest.mark.skipif(CHROMIUM is None, reason="tests of the notebooks in a browser: no chromium is installed")
patience = pytest.mark.skipif(
    "RL_MOP_TEST_EDITOR" not in os.environ,
    reason="the notebook in marimo's editor, which starts its cells when it likes: RL_MOP_TEST_EDITOR=1 runs it too",
)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="training on a GPU: this machine has none")
ALL = (browser, patience, gpu)
