"""The same seed gives the same weights, metrics, results and caches, bit for bit, on every x86-64 processor.

`tests/same_numbers.py` trains and evaluates in processes that are told to be on another processor: each setting takes
away vector instructions, or fused multiplication, or chooses another library's kernels, or another number of threads.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, dict[str, str]] = {
    "this processor as it is": {},
    "no vectors in PyTorch": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Sandybridge",
    },
    "AVX2 in PyTorch, two threads": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_NUM_THREADS": "2",
        "NUMBA_NUM_THREADS": "2",
    },
    "no fused multiplication in compiled code": {
        "NUMBA_CPU_NAME": "generic",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX2",
    },
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_numbers_are_those_of_every_other_processor(setting, tmp_path):
    """tests/same_numbers.json was written on another machine. A change of the arithmetic that is meant writes it anew:
    python tests/same_numbers.py $(mktemp -d) > tests/same_numbers.json"""
    command = [sys.executable, ROOT / "tests" / "same_numbers.py", tmp_path]
    done = subprocess.run(command, env=os.environ | SETTINGS[setting], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = json.loads((ROOT / "tests" / "same_numbers.json").read_text(encoding="utf-8"))
    computed = json.loads(done.stdout)
    assert {name: value for name, value in computed.items() if expected[name] != value} == {}
    assert computed.keys() == expected.keys()
