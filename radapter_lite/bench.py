"""The long runs behind the notebooks' tables: methods x shots x seeds, each swept along α, saved as CSV.

`radapter-lite bench` runs what is missing and can be interrupted at any time.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from radapter_lite.backbones import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.evaluation import evaluate, mean_and_interval, summarize, sweep
from radapter_lite.methods.fine_tuning import fine_tune
from radapter_lite.methods.r_adapter import tune_r_adapter
from radapter_lite.methods.recommended import recommended_fine_tuning, recommended_r_adapter
from radapter_lite.training import Tuned

RESULTS = Path(__file__).parent / "assets" / "results"
METHODS = ("R-Adapter", "fine-tuning")
SHOTS = (1, 2, 4, 8, 16)
SEEDS = {1: 3, 2: 3, 4: 3, 8: 3, 16: 5}  # by shots: five where the claims about alpha rest
SEARCH_SEED = 1000  # of the images and the run that settings are chosen with
ALPHAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


def tune(method: str, backbone: Backbone, images: ImageSet, shots: int, seed: int) -> Tuned:
    """Tune with one of `METHODS` in its recommended settings, on `shots` images a class drawn with `seed`."""
    few = images.few_shot(shots, seed)
    if method == "R-Adapter":
        return tune_r_adapter(backbone, few, recommended_r_adapter(backbone, shots, seed))
    if method == "fine-tuning":
        return fine_tune(backbone, few, recommended_fine_tuning(backbone, shots, seed))
    raise ValueError(f"{method} is no method of the bench; there are {', '.join(METHODS)}")


def measure(
    tuned: Tuned, backbone: Backbone, images: ImageSet, alphas: Iterable[float] = ALPHAS, **columns: object
) -> pd.DataFrame:
    """Sweep a delta over the test images of all domains and the ID validation images; a column `split` tells."""
    parts = []
    for split in ("test", "validation"):
        result = sweep(backbone, tuned.delta, images.select(split=split), alphas)
        parts.append(result.assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    columns |= {
        "trained_parameters": tuned.trained_parameters,
        "seconds": round(float(tuned.history["seconds"].iloc[-1]), 1),
    }
    return table.assign(**columns)


def run(
    backbone: Backbone,
    images: ImageSet,
    path: Path,
    seeds: int | None = None,
    shots: Iterable[int] = SHOTS,
) -> None:
    """Run every method, number of shots and seed that `path` does not hold yet, and add its rows.

    `seeds` is how many for each number of shots; `SEEDS` if left out.
    """
    plan = [(number, seed) for number in shots for seed in range(seeds or SEEDS.get(number, 3))]
    for number, seed in sorted(plan, key=lambda pair: (-pair[0], pair[1])):
        for method in METHODS:
            done = pd.read_csv(path) if path.exists() else pd.DataFrame()
            key = {"method": method, "shots": number, "seed": seed}
            if len(done) and (done[list(key)] == list(key.values())).all(axis=1).any():
                continue
            # The whole curve is wanted for 16 shots, where the α slider is drawn, and its ends elsewhere.
            alphas = ALPHAS if number == max(SHOTS) else (0.0, 0.5, 1.0)
            tuned = tune(method, backbone, images, number, seed)
            rows = measure(tuned, backbone, images, alphas, **key)
            save_rows(pd.concat([done, rows], ignore_index=True), path)


def search(backbone: Backbone, images: ImageSet, path: Path) -> pd.DataFrame:
    """Choose both methods' settings on ID validation images: one of three learning rates, then twice the epochs.

    Each method gets four runs on 16 shots of a seed that no reported run uses. One row a run: method, the
    settings, validation accuracy at α = 1, seconds.
    """
    few = images.few_shot(16, SEARCH_SEED)
    validation = images.select(domain=images.id_domain, split="validation")
    rows: list[dict] = []

    def try_out(method: str, **settings: float) -> None:
        done = pd.read_csv(path).to_dict("records") if path.exists() else []
        known = [
            row for row in done if all(row.get(k) == v for k, v in ({"method": method} | settings).items())
        ]
        if not known:
            tuned = _tune_with(method, backbone, few, settings)
            with tuned.delta.applied(backbone.model, 1.0):
                accuracy = evaluate(backbone, validation)["accuracy"].item()
            seconds = round(float(tuned.history["seconds"].iloc[-1]), 1)
            known = [{"method": method, **settings, "validation": accuracy, "seconds": seconds}]
            save_rows(pd.DataFrame(done + known), path)
        rows.append(known[0])

    def best(method: str) -> dict:
        own = [row for row in rows if row["method"] == method]
        top = max(own, key=lambda row: row["validation"])
        return {key: value for key, value in top.items() if key not in ("method", "validation", "seconds")}

    for lr in (1e-3, 3e-3, 8e-3):
        try_out("R-Adapter", lr=lr, epochs=15)
    try_out("R-Adapter", **(best("R-Adapter") | {"epochs": 30}))
    for lr in (2.5e-4, 5e-4, 1e-3):
        try_out("fine-tuning", lr=lr, epochs=10)
    try_out("fine-tuning", **(best("fine-tuning") | {"epochs": 20}))
    return pd.DataFrame(rows)


def _tune_with(method: str, backbone: Backbone, few: ImageSet, settings: dict) -> Tuned:
    changed = {"lr": settings["lr"], "epochs": int(settings["epochs"])}
    if method == "fine-tuning":
        full = recommended_fine_tuning(backbone, 16, SEARCH_SEED)
        return fine_tune(backbone, few, replace(full, training=replace(full.training, **changed)))
    adapter = recommended_r_adapter(backbone, 16, SEARCH_SEED)
    return tune_r_adapter(backbone, few, replace(adapter, training=replace(adapter.training, **changed)))


def save_rows(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    table.round(4).to_csv(partial, index=False)
    os.replace(partial, path)


def load_results(name: str = "few_shot") -> pd.DataFrame:
    """A saved table of long runs. Raises FileNotFoundError naming the command that makes it."""
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"The results {name} are not here; make them with `radapter-lite bench`.")
    return pd.read_csv(path)


def results_table(saved: pd.DataFrame) -> str:
    """The README's table in Markdown: 16 shots and fewer at α = 1, and 16 shots at α = 0.5, mean ± 95% interval."""
    test = summarize(saved[saved["split"] == "test"], ["method", "shots", "seed", "alpha"])
    rows = mean_and_interval(test, ["method", "shots", "alpha"])
    start = rows[rows["alpha"] == 0].iloc[0]
    shown = rows[(rows["alpha"] == 1) | ((rows["alpha"] == 0.5) & (rows["shots"] == 16))]
    lines = [
        "| method | shots | α | ID (outline) | OOD mean | seeds |",
        "|---|---|---|---|---|---|",
        f"| zero-shot | 0 | 0 | {start['id']:.1f} | {start['ood']:.1f} | |",
    ]
    for row in shown.sort_values(["shots", "method", "alpha"]).itertuples():
        name = "WiSE-FT" if row.method == "fine-tuning" and row.alpha < 1 else row.method
        lines.append(
            f"| {name} | {row.shots} | {row.alpha:g} | {row.id:.1f} ± {row.id_ci:.1f} "
            f"| {row.ood:.1f} ± {row.ood_ci:.1f} | {row.seeds} |"
        )
    return "\n".join(lines)
