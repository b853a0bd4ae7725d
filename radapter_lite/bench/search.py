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
from radapter_lite.bench.measuring import seconds
from radapter_lite.bench.tables import add_rows, missing, read_rows
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
    keys = [
        {"method": name, "shots": number, "settings": json.dumps(settings)}
        for number in sorted(shots, reverse=True)
        for name in methods
        for settings in METHODS[name].grid
    ]
    for key in tqdm(missing(keys, path), desc="searching", disable=None):
        add_rows(pd.DataFrame([_try_out(backbone, images, **key)]), path)
    table = read_rows(path)
    best_rows = table.loc[table.groupby(["method", "shots"], sort=False)["validation"].idxmax()]
    return best_rows[best_rows["method"].isin(methods) & best_rows["shots"].isin(shots)]


def _try_out(backbone: Backbone, images: ImageSet, method: str, shots: int, settings: str) -> dict[str, Any]:
    known = METHODS[method]
    budget = {"epochs": EPOCHS[shots] // 2, "seed": SEED} if known.trains else {}
    config = with_settings(known.config, json.loads(settings) | budget)
    tuned = known.tune(backbone, images.few_shot(shots, SEED), config)
    validation = images.select(domain=images.id_domain, split="validation")
    if isinstance(tuned, TunedPoint):
        similarities = tuned.similarities(validation)
    else:
        with tuned.delta.applied(backbone.model, 1.0):
            similarities = predict(backbone, validation)
    accuracy = accuracy_by_domain(similarities, validation)["accuracy"].item()
    measured = {"validation": accuracy, "seconds": seconds(tuned)}
    return {"method": method, "shots": shots, "settings": settings} | measured
