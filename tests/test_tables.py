"""The saved tables of the long runs: their names, and that reading them needs nothing of the platform."""

import subprocess
import sys

import pytest

from radapter_lite.results import NAMES, load_results


def test_results_that_are_none_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        ValueError, match="'typo' names no results; there are search, few_shot, ablations, costs"
    ):
        load_results("typo")
    for name in NAMES:
        with pytest.raises(FileNotFoundError, match=f"make them with `radapter-lite bench {name}`"):
            load_results(name, tmp_path)


def test_results_are_read_without_what_windows_lacks():
    """`resource` measures the memory of a training step, on other systems."""
    script = (
        "import sys; sys.modules['resource'] = None; "
        "import radapter_lite.bench.tables, radapter_lite.methods.recommended as r; print(r.searched('R-Adapter', 16))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "lr" in done.stdout, done.stderr
