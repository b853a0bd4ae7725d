"""What the saved long runs must show: there is something to gain by tuning, and R-Adapter gains it."""

import pytest

from radapter_lite.bench import load_results
from radapter_lite.bench.search import RUNS
from radapter_lite.methods.registry import METHODS
from radapter_lite.statistics import ood_at_id, summarize


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


@pytest.mark.parametrize(("shots", "name"), [(16, "LP-FT"), (4, "Tip-Adapter-F")])
def test_the_readme_names_who_reaches_more_than_r_adapter(shots, name):
    rows = load_results("few_shot").query("split == 'test' and shots == @shots").fillna({"alpha": 1.0})
    means = summarize(rows[rows["alpha"] == 1], ["method", "seed"]).groupby("method")[["id", "ood"]].mean()
    assert (means.loc[name] > means.loc["R-Adapter"]).all()


def test_every_comparison_has_five_seeds():
    runs = load_results("few_shot").query("shots in (4, 16)")
    assert (runs.groupby(["method", "shots"])["seed"].nunique() == 5).all()
    assert (load_results("ablations").groupby("variant")["seed"].nunique() == 5).all()
