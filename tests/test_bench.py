"""The long runs: resumable, complete, and turned into the README's table."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import make_backbone, make_folder

from radapter_lite import bench
from radapter_lite.data import ImageSet, load_images
from radapter_lite.methods.recommended import recommended_fine_tuning, recommended_r_adapter
from radapter_lite.training import TrainingConfig


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return load_images(
        make_folder(tmp_path / "shapes", domains=("photo", "sketch"), images=10), id_domain="photo"
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch a run: what is tested is the bookkeeping."""

    def short(recommended):
        def config(backbone, shots, seed):
            full = recommended(backbone, shots, seed)
            return type(full)(training=TrainingConfig(epochs=1, batch_size=8, lr=1e-3, seed=seed))

        return config

    monkeypatch.setattr(bench, "recommended_r_adapter", short(recommended_r_adapter))
    monkeypatch.setattr(bench, "recommended_fine_tuning", short(recommended_fine_tuning))


def test_a_run_holds_every_method_shot_seed_and_alpha(images: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    bench.run(make_backbone(), images, path, seeds=2, shots=(1, 16))
    table = pd.read_csv(path)
    assert set(zip(table["method"], table["shots"], table["seed"], strict=True)) == {
        (method, shots, seed) for method in bench.METHODS for shots in (1, 16) for seed in (0, 1)
    }
    whole = table[(table["shots"] == 16) & (table["split"] == "test")]
    assert set(whole["alpha"]) == set(bench.ALPHAS)
    assert set(whole["domain"]) == {"photo", "sketch"}
    assert set(table[table["split"] == "validation"]["domain"]) == {"photo"}
    assert (table[table["alpha"] == 0]["forgotten"].dropna() == 0).all()


def test_a_run_goes_on_where_it_stopped(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    bench.run(make_backbone(), images, path, seeds=1, shots=(1,))
    before = pd.read_csv(path)
    started = []
    tune = bench.tune
    monkeypatch.setattr(bench, "tune", lambda *about: started.append(about[0::3]) or tune(*about))
    bench.run(make_backbone(), images, path, seeds=2, shots=(1,))
    assert len(started) == len(bench.METHODS)  # seed 1 alone
    pd.testing.assert_frame_equal(pd.read_csv(path).iloc[: len(before)], before)


def test_the_results_table_has_means_and_intervals() -> None:
    rows = [
        {
            "method": method,
            "shots": 16,
            "seed": seed,
            "alpha": alpha,
            "domain": domain,
            "is_id": domain == "a",
        }
        | {"split": "test", "accuracy": 50 + 10 * alpha + seed}
        for method in bench.METHODS
        for seed in (0, 2)
        for alpha in (0.0, 0.5, 1.0)
        for domain in ("a", "b")
    ]
    table = bench.results_table(pd.DataFrame(rows))
    # Two seeds, 60 and 62: the mean is 61, and t(0.975, 1) = 12.706 times 1 is half the interval's width.
    assert "| R-Adapter | 16 | 1 | 61.0 ± 12.7 | 61.0 ± 12.7 | 2 |" in table
    assert "| WiSE-FT | 16 | 0.5 | 56.0 ± 12.7 | 56.0 ± 12.7 | 2 |" in table


def test_an_unknown_method_is_named(images: ImageSet) -> None:
    with pytest.raises(ValueError, match="LoRA is no method of the bench"):
        bench.tune("LoRA", make_backbone(), images, 1, 0)


def test_missing_results_name_the_command() -> None:
    with pytest.raises(FileNotFoundError, match="radapter-lite bench"):
        bench.load_results("nothing")
