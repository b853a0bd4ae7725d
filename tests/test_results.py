"""What the saved long runs must show: there is something to gain by tuning, and R-Adapter gains it."""

import pytest

from radapter_lite.bench import load_results
from radapter_lite.bench.search import RUNS
from radapter_lite.comparisons import ood_at_id
from radapter_lite.evaluation import summarize
from radapter_lite.methods.registry import METHODS


@pytest.fixture(scope="module")
def curves():
    """ID and OOD by method, seed and α at 16 shots."""
    rows = load_results("few_shot").query("split == 'test' and shots == 16")
    return summarize(rows[rows["method"].isin(["R-Adapter", "FLYP"])], ["method", "seed", "alpha"])


@pytest.fixture(scope="module")
def ends(curves):
    return curves.groupby(["method", "alpha"])[["id", "ood"]].mean()


def test_full_fine_tuning_gains_and_r_adapter_comes_near_it(curves, ends):
    assert curves["seed"].nunique() >= 5
    zero_shot, full, ours = ends.loc[("FLYP", 0.0)], ends.loc[("FLYP", 1.0)], ends.loc[("R-Adapter", 1.0)]
    assert full["id"] - zero_shot["id"] >= 20
    assert ours["id"] >= full["id"] - 4


def test_r_adapter_has_no_less_ood_accuracy_at_equal_id_accuracy(curves):
    leads = []
    for _, run in curves.groupby("seed"):
        ours, full = (run[run["method"] == name] for name in ("R-Adapter", "FLYP"))
        target = min(ours["id"].max(), full["id"].max())
        leads.append(ood_at_id(ours, target) - ood_at_id(full, target))
    assert sum(leads) / len(leads) >= 0


def test_every_method_was_run_and_its_settings_searched_alike():
    results, search = load_results("few_shot"), load_results("search")
    for shots in (4, 16):
        assert set(results[results["shots"] == shots]["method"]) == set(METHODS)
        assert search[search["shots"] == shots].groupby("method").size().reindex(list(METHODS)).eq(RUNS).all()
    curve = results[~results["alpha"].isna()]["method"].unique()
    assert set(curve) == {name for name, method in METHODS.items() if method.has_alpha}
    assert set(load_results("costs")["method"]) == set(METHODS)
