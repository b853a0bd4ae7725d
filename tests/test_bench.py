"""The long runs: resumable, complete, judged on ID validation alone, and turned into the README's table."""

import inspect
import math
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import cloudpickle
import distributed
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder

from radapter_lite import bench
from radapter_lite.adapter import AdapterConfig
from radapter_lite.backbone import Backbone
from radapter_lite.bench import ablations, base_to_novel, few_shot, runs, search, speed
from radapter_lite.data import ImageSet, load_images
from radapter_lite.evaluation import evaluate
from radapter_lite.methods.r_adapter import RAdapterConfig, r_adapter
from radapter_lite.methods.registry import EPOCHS, METHODS, for_backbone, recommended, searched
from radapter_lite.results import add_rows
from radapter_lite.settings import with_settings
from radapter_lite.training import TrainingConfig

NAMES = ["R-Adapter", "CLIP-Adapter", "linear probe"]  # a curve, a point, and one without a training loop
QUICK = {"epochs": 1, "batch_size": 8, "lr": 1e-3, "warmup_steps": 0, "precision": "float32"}


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    folder = make_folder(tmp_path / "shapes", domains=("photo", "sketch"), images=10)
    return load_images(folder, id_domain="photo")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch a run: what is tested is the bookkeeping."""

    def short(method, backbone, shots, seed, id_domain="outline"):
        settings = QUICK | {"seed": seed} if METHODS[method].trains else {}
        settings |= {"momentum": 0.5} if method == "R-Adapter" else {}
        return with_settings(METHODS[method].config, settings)

    monkeypatch.setattr(few_shot, "recommended", short)
    monkeypatch.setattr(ablations, "recommended", short)


def test_a_run_holds_every_method_shot_seed_and_alpha(images: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    bench.run_few_shot(make_backbone(), images, path, NAMES, [1, 16], seeds=2)
    table = pd.read_csv(path)
    assert set(zip(table["method"], table["shots"], table["seed"], strict=True)) == {
        (method, shots, seed) for method in NAMES for shots in (1, 16) for seed in (0, 1)
    }
    curve = table[(table["method"] == "R-Adapter") & (table["shots"] == 16) & (table["split"] == "test")]
    assert set(curve["alpha"]) == set(bench.ALPHAS) and set(curve["domain"]) == {"photo", "sketch"}
    assert table[table["method"] == "CLIP-Adapter"]["alpha"].isna().all()
    assert set(table[table["split"] == "validation"]["domain"]) == {"photo"}
    assert (table[table["alpha"] == 0][["forgotten", "agreement"]].dropna() == [0, 100]).all(axis=None)


def test_a_run_goes_on_where_it_stopped(images: ImageSet, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "rows.csv"
    bench.run_few_shot(make_backbone(), images, path, ["R-Adapter"], [1], seeds=1)
    before = pd.read_csv(path)
    started = []

    function = METHODS["R-Adapter"].function

    def watched(backbone, task, config, train):
        started.append(config.training.seed)
        return function(backbone, task, config, train)

    monkeypatch.setitem(METHODS, "R-Adapter", replace(METHODS["R-Adapter"], function=watched))
    bench.run_few_shot(make_backbone(), images, path, ["R-Adapter"], [1], seeds=2)
    assert started == [1]
    pd.testing.assert_frame_equal(pd.read_csv(path).iloc[: len(before)], before)


def test_the_exam_measures_what_the_delta_gives(images: ImageSet) -> None:
    clip = make_backbone()
    tuned = r_adapter(
        clip, images.few_shot(4), RAdapterConfig(TrainingConfig(epochs=3, lr=1e-2), adapter=AdapterConfig(momentum=0.5))
    )
    from radapter_lite.evaluation import sweep

    rows = bench.Exam.prepare(clip, images).measure(tuned, (0.0, 0.5, 1.0), method="R-Adapter")
    test = rows[rows["split"] == "test"].set_index(["alpha", "domain"])
    expected = sweep(clip, tuned.delta, images.select(split="test"), (0.0, 0.5, 1.0))
    for row in expected.itertuples():
        assert test.loc[(row.alpha, row.domain), "accuracy"] == pytest.approx(row.accuracy)
        assert test.loc[(row.alpha, row.domain), "images"] == row.images
    assert set(rows["trained_parameters"]) == {tuned.trained_parameters}


def test_the_search_takes_the_best_on_id_validation(images: ImageSet, tmp_path: Path, monkeypatch) -> None:
    path, names = tmp_path / "search.csv", ["CLIP-Adapter", "linear probe"]
    method = METHODS["CLIP-Adapter"]
    monkeypatch.setitem(METHODS, "CLIP-Adapter", replace(method, config=with_settings(method.config, QUICK)))
    monkeypatch.setattr(search, "epochs", lambda shots: 4)
    best = bench.run_search(make_backbone(), images, path, names, [4])
    table = pd.read_csv(path)
    for name, own in table.groupby("method"):
        assert own["run"].tolist() == list(range(search.RUNS)) and own["value"].is_unique
        assert set(own["setting"]) == {METHODS[name].searched}
        assert own["value"].tolist()[:3] == list(METHODS[name].grid)
        assert best.set_index("method").loc[name, "validation"] == own["validation"].max()
    bench.run_search(make_backbone(), images, path, names, [4])
    assert len(pd.read_csv(path)) == len(table)  # nothing is run twice


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({}, 1e-4),
        ({1e-4: 50}, 2e-4),
        ({1e-4: 50, 2e-4: 60, 4e-4: 70}, 8e-4),  # the highest: one step beyond
        ({1e-4: 70, 2e-4: 60, 4e-4: 50}, 5e-5),  # the lowest
        ({1e-4: 50, 2e-4: 70, 4e-4: 60}, 2.8e-4),  # between: halfway to the better neighbour, as factors go
        ({1e-4: 60, 2e-4: 70, 4e-4: 50}, 1.4e-4),
        ({1e-4: 50, 2e-4: 60, 4e-4: 70, 8e-4: 65}, 5.7e-4),
    ],
)
def test_the_search_looks_where_the_best_points(accuracies: dict[float, float], expected: float) -> None:
    assert search.next_value((1e-4, 2e-4, 4e-4), accuracies) == pytest.approx(expected)


def test_the_recommended_settings_are_the_best_of_the_saved_search() -> None:
    table = bench.load_results("search")
    assert set(table["method"]) == set(METHODS)
    assert (bench.load_results("search", id_domain="camera").groupby(["method", "shots"]).size() == search.RUNS).all()
    assert (table.groupby(["method", "shots"]).size() == search.RUNS).all()
    clip = replace(make_backbone(), search="search")
    for (method, shots), own in table.groupby(["method", "shots"]):
        best = own.loc[own["validation"].idxmax()]
        assert searched(method, shots) == {best["setting"]: best["value"]}
        config = recommended(method, clip, shots, 7)
        if best["setting"] == "lr":
            assert (config.training.lr, config.training.epochs) == (best["value"], EPOCHS[shots])
            assert config.training.seed == 7
    assert searched("R-Adapter", 8) == searched("R-Adapter", 16)
    # A folder of one's own has the settings of photographs, and where those were not searched, those of drawings.
    far = bench.load_results("search", id_domain="camera")
    for method in METHODS:
        own = searched(method, 16, id_domain="photos")
        assert own == searched(method, 16, id_domain="camera" if method in set(far["method"]) else "outline") != {}


def test_the_recommended_temperature_is_the_backbones_own() -> None:
    clip = make_backbone()
    with torch.no_grad():
        clip.model.logit_scale.fill_(math.log(25))
    for name in METHODS:
        for backbone in (clip, replace(clip, search="search")):
            config = recommended(name, backbone)
            assert getattr(config, "temperature", 0.04) == pytest.approx(0.04), name


def test_every_method_has_settings_for_other_backbones() -> None:
    for name in METHODS:
        recommended(name, make_backbone(), 16, 3)
    assert recommended("R-Adapter", make_backbone(), 16, 3).adapter == AdapterConfig(4, 0.2, momentum=0.9)


def test_elsewhere_the_average_of_a_small_folder_has_left_its_zero_start(images: ImageSet) -> None:
    clip, few = make_backbone(), images.few_shot(4)  # 12 images: a step an epoch, the fewest there can be
    config = recommended("R-Adapter", clip, 4)
    found = ablations.tune_with_momenta(clip, few, config, (config.adapter.momentum,))
    live, average = (
        sum(matrix.norm() for matrix in found[m].delta.tensors.values()) for m in (0.0, config.adapter.momentum)
    )
    assert average > 0.5 * live


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SGD is no method of this kit; there are R-Adapter"):
        recommended("SGD", make_backbone())
    with pytest.raises(ValueError, match="SGD is no method of this kit; there are R-Adapter"):
        bench.run_few_shot(make_backbone(), load_images(), tmp_path / "rows.csv", ["SGD"])
    with pytest.raises(ValueError, match="RAdapterConfig has no setting 'beta'"):
        with_settings(RAdapterConfig(), {"beta": 1})
    with pytest.raises(ValueError, match="'nothing' names no results; there are search"):
        bench.load_results("nothing")


def test_one_training_gives_the_delta_of_every_momentum(images: ImageSet) -> None:
    clip, few = make_backbone(), images.few_shot(4)
    loop = TrainingConfig(epochs=4, batch_size=8, lr=1e-2)  # 8 steps: the average under 0.9 has left its zero start
    config = RAdapterConfig(loop, adapter=AdapterConfig(momentum=0.7))
    found = ablations.tune_with_momenta(clip, few, config, (0.7, 0.9))
    assert set(found) == {0.0, 0.7, 0.9}
    for momentum, tuned in found.items():
        alone = r_adapter(clip, few, replace(config, adapter=AdapterConfig(momentum=momentum)))
        for name, tensor in alone.delta.tensors.items():
            assert torch.equal(tuned.delta.tensors[name], tensor), (momentum, name)


def test_the_ablations_hold_every_variant(images: ImageSet, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "ablations.csv"
    names = ("R-Adapter", "adapter, InfoNCE", "drop-path", "rank 4")
    monkeypatch.setattr(ablations, "VARIANTS", {name: ablations.VARIANTS[name] for name in names})
    summary = bench.run_ablations(make_backbone(), images, path, seeds=2)
    table = pd.read_csv(path)
    assert set(table["variant"]) == set(names) and set(table["seed"]) == {0, 1}
    assert set(table[table["variant"] == "R-Adapter"]["momentum"]) == {0.0, *ablations.MOMENTA}
    assert np.isfinite(summary[["id", "ood", "id_ci", "ood_ci"]]).all(axis=None)


def test_every_ablation_changes_the_configuration() -> None:
    base = for_backbone("R-Adapter", make_backbone(), {})
    for name, settings in ablations.VARIANTS.items():
        assert (with_settings(base, settings) == base) == (name == "R-Adapter"), name


def made_up(method: str, shots: int, id: float, ood: float, alpha: float = 1.0) -> list[dict]:
    """Two seeds of a method, one point below and one above these means, with α = 0 where it has an α."""
    alphas = [alpha] if np.isnan(alpha) else [0.0, 0.5, alpha]
    about = {"method": method, "shots": shots, "split": "test"}
    return [
        about | {"seed": seed, "alpha": a, "domain": domain, "is_id": domain == "a"} | {"accuracy": accuracy}
        for seed, shift in ((0, -1), (1, 1))
        for a in alphas
        for domain, accuracy in (("a", id + shift - 40 * (a < 1)), ("b", ood + shift + 40 * (a < 1)))
    ]


def test_the_results_table_has_means_and_intervals() -> None:
    rows = [
        *(made_up("R-Adapter", 16, 61.0, 51.0)),
        *(made_up("FLYP", 16, 61.0, 51.0)),
        *(made_up("LoRA", 16, 1.0, 1.0)),
    ]
    table = bench.results_table(pd.DataFrame(rows))
    # Two seeds, 60 and 62: the mean is 61, and t(0.975, 1) = 12.706 times 1 is half the interval's width.
    assert "| R-Adapter | 16 | 1 | 61.0 ± 12.7 | 51.0 ± 12.7 | 2 |" in table
    assert "| WiSE-FT over FLYP | 16 | 0.5 | 21.0 ± 12.7 | 91.0 ± 12.7 | 2 |" in table
    assert "| zero-shot | 0 | 0 | 21.0 | 91.0 | |" in table and "LoRA" not in table


NO_ALPHA = float("nan")


@pytest.mark.parametrize(
    ("others", "who"),
    [
        ([], "no method reaches"),
        ([("FLYP", 65, 45)], "FLYP (ID 65.0, OOD 45.0) reaches"),
        ([("LP-FT", 65, 45, NO_ALPHA)], "LP-FT (ID 65.0, OOD 45.0; no α) reaches"),
        ([("FLYP", 55, 35)], "no method reaches"),
        ([("FLYP", 60, 40)], "no method reaches"),  # a tie
        ([("FLYP", 60, 45)], "no method reaches"),  # a tie in one of the two
        ([("FLYP", 65, 39.9)], "no method reaches"),  # better on ID only
        ([("FLYP", 59.9, 45, NO_ALPHA)], "no method reaches"),  # and on OOD only
        (
            [("LoRA", 61, 41), ("FLYP", 62, 43), ("CoOp", 99, 40)],
            "FLYP (ID 62.0, OOD 43.0) and LoRA (ID 61.0, OOD 41.0) reach",
        ),
        (
            [("LoRA", 61, 41), ("FLYP", 62, 43), ("CoOp", 63, 44, NO_ALPHA)],
            "CoOp (ID 63.0, OOD 44.0; no α), FLYP (ID 62.0, OOD 43.0) and LoRA (ID 61.0, OOD 41.0) reach",
        ),
    ],
)
def test_who_is_ahead_is_told_whoever_it_is(others: list[tuple], who: str) -> None:
    rows = made_up("R-Adapter", 4, 60, 40) + made_up("R-Adapter", 16, 70, 50)
    for method, id, ood, *alpha in others:
        rows += made_up(method, 4, id, ood, *alpha) + made_up(method, 16, id, ood, *alpha)
        rows += [row | {"split": "validation", "accuracy": 99.0} for row in made_up(method, 4, id, ood, *alpha)]
    assert bench.who_is_ahead(pd.DataFrame(rows)).splitlines() == [
        f"At 4 shots, {who} more than R-Adapter, both ID and OOD, of {1 + len(others)} measured.",
        f"At 16 shots, no method reaches more than R-Adapter, both ID and OOD, of {1 + len(others)} measured.",
    ]
    unwhitened = pd.DataFrame(rows + made_up("R-Adapter, unwhitened", 16, 69, 51))
    assert (
        bench.who_is_ahead(unwhitened)
        .splitlines()[2]
        .startswith("At 16 shots, no method reaches more than *R-Adapter, u")
    )
    rows = [row for row in rows if (row["method"], row["shots"]) != ("R-Adapter", 4)]
    assert bench.who_is_ahead(pd.DataFrame(rows)).startswith("At 16 shots")  # with nothing to compare with at 4


def test_base_to_novel_measures_two_halves_of_the_classes(images: ImageSet, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(base_to_novel, "recommended", few_shot.recommended)
    base, novel = base_to_novel.halves(images, seed=1)
    assert not set(base.classes) & set(novel.classes) and len(base.classes) - len(novel.classes) in (0, 1)
    assert base_to_novel.halves(images, seed=1)[0].classes == base.classes
    path = tmp_path / "rows.csv"
    bench.run_base_to_novel(make_backbone(), images, path, ["R-Adapter", "CLIP-Adapter"], seeds=1)
    table = pd.read_csv(path)
    test = table[(table["split"] == "test") & table["is_id"]]
    assert set(zip(test["method"], test["part"], strict=True)) == {
        (method, part) for method in ("R-Adapter", "CLIP-Adapter") for part in ("base", "novel", "cross-dataset")
    }
    expected = evaluate(make_backbone(), base_to_novel.halves(images, 0)[1].test).set_index("domain")["accuracy"]
    start = test[(test["alpha"] == 0) & (test["part"] == "novel")]
    assert start["accuracy"].tolist() == pytest.approx([expected[start["domain"].iloc[0]]], abs=1e-4)


def test_severities_are_told_apart_in_the_rows(images: ImageSet, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(few_shot, "load_images", lambda id_domain, severity: images)
    path = tmp_path / "rows.csv"
    bench.run_severity(make_backbone(), path, ["CLIP-Adapter"], seeds=1)
    before = path.read_bytes()
    assert set(pd.read_csv(path)["severity"]) == set(few_shot.SEVERITIES)
    bench.run_severity(make_backbone(), path, ["CLIP-Adapter"], seeds=1)
    assert path.read_bytes() == before


def made_up_overview(lead: float) -> pd.DataFrame:
    """Two tasks, three seeds: R-Adapter `lead` points over WiSE-FT on ID, and as noisy as WiSE-FT on OOD."""
    rows = []
    for task in ("full data", "few shots"):
        for seed in range(3):
            wise = {"task": task, "way": "WiSE-FT", "seed": seed, "id": 50.0 + seed, "ood": 40.0}
            ours = {"way": "R-Adapter", "id": 50 + seed + lead + 0.01 * seed, "ood": 40.0 + (-3, 0, 4)[seed]}
            rows += [wise | {"way": "zero-shot", "id": 30.0}, wise, wise | ours]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("lead", "verdict"), [(2, "+2.0 ± 0.0 (ahead)"), (-2, "-2.0 ± 0.0 (behind)")])
def test_the_overview_tells_who_is_ahead_by_more_than_the_interval(lead: float, verdict: str) -> None:
    lines = bench.overview_table(made_up_overview(lead)).splitlines()
    assert lines[0] == "| task (seeds) | zero-shot | WiSE-FT | R-Adapter |"
    assert lines[2].startswith("| full data (3) | 30.0 ± 0.0 / 40.0 ± 0.0 | 51.0 ± 2.5 / 40.0 ± 0.0 |")
    assert lines[-1].count(f"ID {verdict}") == 2 and lines[-1].count("(not told apart)") == 2
    ahead = 2 if lead > 0 else 0
    assert lines[-1].endswith(f"Of 4 comparisons: {ahead} ahead, {2 - ahead} behind, 2 not told apart.")


def test_the_overview_reads_every_task_and_takes_base_classes_for_id() -> None:
    by_seed = bench.overview()
    assert (by_seed.groupby(["task", "way"])["seed"].nunique() >= 3).all()
    rows = bench.load_results("base_to_novel", id_domain="camera").query("split == 'test' and is_id and seed == 0")
    base = rows.query("method == 'R-Adapter' and alpha == 0.5 and part == 'base'")["accuracy"].item()
    own = by_seed.query("task == 'base to novel' and way == 'R-Adapter' and seed == 0")
    assert own["id"].item() == pytest.approx(base)


def test_the_terminal_says_something_of_every_part() -> None:
    """The terminal lists them without importing the benches, which takes seconds."""
    from radapter_lite.commands.bench import PARTS

    assert set(PARTS) == {*bench.PARTS, "table", "claims", "overview"}


# --- several processes ---


def as_a_set(path: Path) -> pd.DataFrame:
    """The rows and columns of a file in an order of their own, without what a clock says."""
    rows = pd.read_csv(path).drop(columns="seconds").sort_index(axis=1)
    return rows.sort_values(["method", "shots", "seed", "alpha", "split", "domain"], ignore_index=True)


@pytest.fixture
def alone(images: ImageSet, tmp_path: Path) -> pd.DataFrame:
    """The rows that one process gives."""
    bench.run_few_shot(make_backbone(), images, tmp_path / "alone.csv", NAMES, [1], seeds=2)
    return as_a_set(tmp_path / "alone.csv")


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(images: ImageSet, alone: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with bench.workers(jobs=2):
        bench.run_few_shot(make_backbone(), images, path, NAMES, [1], seeds=2)
    pd.testing.assert_frame_equal(as_a_set(path), alone, check_exact=True)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_loses_no_row_and_makes_none_twice(
    images: ImageSet, alone: pd.DataFrame, tmp_path: Path, monkeypatch
) -> None:
    path, killed = tmp_path / "rows.csv", []

    def add(rows: pd.DataFrame, path: Path) -> None:
        add_rows(rows, path)
        if not killed:
            killed.append(next(iter(cluster.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(runs, "add_rows", add)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, bench.workers(dask=cluster.scheduler_address):
        bench.run_few_shot(make_backbone(), images, path, NAMES, [1], seeds=2)
    assert killed
    pd.testing.assert_frame_equal(as_a_set(path), alone, check_exact=True)


@pytest.mark.parametrize("part", sorted({*bench.PARTS} - {"speed"}))  # whose turns are taken in one process
def test_the_runs_of_every_part_can_be_sent(part: str, images: ImageSet, tmp_path: Path, monkeypatch) -> None:
    class Sent(Exception):
        pass

    def send(run, keys):
        assert callable(pickle.loads(cloudpickle.dumps(run)))
        raise Sent

    monkeypatch.setattr(runs, "_each", send)
    for scenes in ("TRAINING", "TEST", "VALIDATION"):
        monkeypatch.setattr(base_to_novel, scenes, 2)
    takes = inspect.signature(bench.PARTS[part]).parameters
    shown = load_images() if part == "retrieval" else images
    with pytest.raises(Sent):
        bench.PARTS[part](make_backbone(), **{"images": shown} if "images" in takes else {}, path=tmp_path / "rows.csv")


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_fails_is_named_and_the_others_are_kept(jobs: int, tmp_path: Path) -> None:
    def run(key: dict) -> pd.DataFrame:
        return pd.DataFrame([key | {"inverse": 1 / key["seed"]}])

    keys, path = [{"method": "LoRA", "seed": seed} for seed in range(3)], tmp_path / "rows.csv"
    said = r"1 of 3 runs failed, the first with method LoRA, seed 0 \(ZeroDivisionError: division by zero\); the others"
    with bench.workers(jobs), pytest.raises(ValueError, match=said):
        runs.run_missing(keys, run, path)
    assert sorted(pd.read_csv(path)["seed"]) == [1, 2]


def test_an_address_without_a_cluster(monkeypatch) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.2)
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        said = f"no Dask cluster with a worker answers at {address} .*dask worker"
        with pytest.raises(ConnectionError, match=said), bench.workers(dask=address):
            raise AssertionError("nothing may be run")


def test_speed_is_measured_beside_every_peer_and_goes_on_where_it_stopped(
    images: ImageSet, tmp_path: Path, monkeypatch
) -> None:
    loaded = []

    def load(name: str, source: str | Path) -> Backbone:
        clip = make_backbone()
        if source != "random":
            loaded.append(torch.load(source))
            clip.model.load_state_dict(loaded[-1])
        return clip

    monkeypatch.setattr(speed, "load_clip", load)
    clip, path = make_backbone(), tmp_path / "speed.csv"
    before = {name: weight.clone() for name, weight in clip.model.state_dict().items()}
    assert len(bench.run_speed(clip, images, path, seeds=1)) == 8
    ratios = bench.run_speed(clip, images, path, seeds=2)
    table = pd.read_csv(path)
    assert (table.groupby(["measure", "contender"])["seed"].nunique() == 2).all() and (table["cost"] > 0).all()
    assert set(ratios["peer"]) == set(table["contender"]) - {"R-Adapter"}
    assert (ratios["lowest"] <= ratios["percent"]).all() and (ratios["percent"] <= ratios["highest"]).all()
    assert len(loaded) == 2 * 21 and torch.equal(loaded[0]["positional_embedding"], before["positional_embedding"])
    assert any(not torch.equal(loaded[20][name], before[name]) for name in before)
    assert all(torch.equal(weight, before[name]) for name, weight in clip.model.state_dict().items())


def test_the_authors_adapter_is_theirs() -> None:
    """Its scalar multiplies what it adds, each sample is dropped alone, and at the start it adds nothing."""
    clip = speed.Padded(**vars(make_backbone()))
    tokens = clip.tokenizer(["red", "dark blue"])
    start = clip.encode_texts(tokens)
    inside = speed.authors_adapters(clip)
    assert len(inside) == 2 * 3 + 2 * 2 and torch.equal(clip.encode_texts(tokens), start)
    adapter, x = inside[0], torch.randn(400, 5, 64)
    torch.nn.init.normal_(adapter.weight)
    added = adapter(x) - x
    dropped = (added == 0).flatten(1).all(1)
    assert 0.1 < dropped.float().mean() < 0.3
    torch.testing.assert_close(added[~dropped], 0.1 / 0.8 * (x @ adapter.weight)[~dropped], rtol=1e-3, atol=1e-4)
