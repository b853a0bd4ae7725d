"""Settings for every method, chosen on ID validation images with the same budget: three runs of half the epochs each.

The images are few-shot draws of a seed that no reported run uses. Nothing of the test images or of the other domains
is looked at.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from radapter_lite.backbones import Backbone
from radapter_lite.bench.tables import add_rows, has_row, read_rows
from radapter_lite.data import ImageSet
from radapter_lite.evaluation import accuracy_by_domain, predict
from radapter_lite.methods.recommended import with_settings
from radapter_lite.methods.registry import EPOCHS, METHODS
from radapter_lite.training import TunedPoint

SEED = 1000


def run_search(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str], shots: list[int]
) -> pd.DataFrame:
    """Run what `path` does not hold yet: a row a run with method, shots, settings (JSON), validation, seconds.

    Returns the best row of each method and number of shots. `validation` is accuracy in percent at α = 1.
    """
    for number in sorted(shots, reverse=True):
        for name in tqdm(methods, desc=f"searching, {number} shots", disable=None):
            for settings in METHODS[name].grid:
                _try_out(backbone, images, path, name, number, settings)
    table = read_rows(path)
    best_rows = table.loc[table.groupby(["method", "shots"], sort=False)["validation"].idxmax()]
    return best_rows[best_rows["method"].isin(methods) & best_rows["shots"].isin(shots)]


def _try_out(
    backbone: Backbone, images: ImageSet, path: Path, name: str, shots: int, settings: dict[str, Any]
) -> None:
    key = {"method": name, "shots": shots, "settings": json.dumps(settings)}
    if has_row(read_rows(path), key):
        return
    method = METHODS[name]
    budget = {"epochs": EPOCHS[shots] // 2, "seed": SEED} if method.trains else {}
    config = with_settings(method.config, settings | budget)
    tuned = method.tune(backbone, images.few_shot(shots, SEED), config)
    validation = images.select(domain=images.id_domain, split="validation")
    if isinstance(tuned, TunedPoint):
        similarities = tuned.similarities(validation)
    else:
        with tuned.delta.applied(backbone.model, 1.0):
            similarities = predict(backbone, validation)
    accuracy = accuracy_by_domain(similarities, validation)["accuracy"].item()
    seconds = round(float(tuned.history["seconds"].iloc[-1]), 1) if len(tuned.history) else 0.0
    add_rows(pd.DataFrame([key | {"validation": accuracy, "seconds": seconds}]), path)
