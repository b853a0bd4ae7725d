"""The saved tables of the long runs: their names, what reading them needs, and that every method was run alike.

What they say of any method is not tested: README and notebooks are, for saying the same.
"""

import subprocess
import sys

import pytest

from radapter_lite.bench.search import RUNS
from radapter_lite.methods.registry import METHODS
from radapter_lite.results import NAMES, load_results


def test_results_that_are_none_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        ValueError, match="'typo' names no results; there are search, few_shot, severity, full_data, base_to_novel, "
    ):
        load_results("typo")
    for name in NAMES:
        with pytest.raises(FileNotFoundError, match=f"make them with `radapter-lite bench {name}`"):
            load_results(name, tmp_path)


def test_a_domain_that_nothing_was_tuned_on_is_named():
    sentence = "the results few_shot have no run that was tuned on 'solid', only on outline, camera: name one"
    with pytest.raises(ValueError, match=sentence):
        load_results(id_domain="solid")


def test_results_are_read_without_what_windows_lacks():
    """`resource` measures the memory of a training step, on other systems."""
    script = (
        "import sys; sys.modules['resource'] = None; "
        "import radapter_lite.bench.tables, radapter_lite.methods.registry as r; print(r.searched('R-Adapter', 16))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "lr" in done.stdout, done.stderr


def test_every_method_was_run_and_its_settings_searched_alike():
    results, search = load_results("few_shot"), load_results("search")
    for shots in (4, 16):
        there = set(METHODS) if shots == 16 else set(METHODS) - {"R-Adapter, stem"}
        assert set(results[results["shots"] == shots]["method"]) == there
        assert search[search["shots"] == shots].groupby("method").size().reindex(sorted(there)).eq(RUNS).all()
    curve = results[~results["alpha"].isna()]["method"].unique()
    assert set(curve) == {name for name, method in METHODS.items() if method.has_alpha}


@pytest.mark.parametrize("id_domain", ["outline", "camera"])
def test_every_comparison_has_five_seeds(id_domain):
    runs, search = (load_results(name, id_domain=id_domain) for name in ("few_shot", "search"))
    runs = runs.query("shots in (4, 16)")
    assert {"R-Adapter", "R-Adapter, stem", "FLYP"} <= set(runs["method"])
    assert (runs.groupby(["method", "shots"])["seed"].nunique() == 5).all()
    assert (search.groupby(["method", "shots"]).size() == RUNS).all()


def test_every_ablation_has_five_seeds():
    assert (load_results("ablations").groupby("variant")["seed"].nunique() == 5).all()
