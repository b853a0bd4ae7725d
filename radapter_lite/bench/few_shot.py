"""Every method on a few shots, over seeds, measured along α where it has one: the tables of notebooks 05, 06 and 08."""

from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.runs import Exam, Key, run_all
from radapter_lite.data import ImageSet, load_images
from radapter_lite.evaluation import examine
from radapter_lite.methods.registry import METHODS, find_method, recommended

SHOTS = (1, 2, 4, 8, 16)
SEEDS = 5
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # at 16 shots or more; the ends and the middle elsewhere
SEVERITIES = (0.0, 0.35, 0.7, 1.0)


def run_few_shot(
    backbone: Backbone,
    images: ImageSet,
    path: Path,
    methods: list[str] | None = None,
    shots: list[int] | None = None,
    seeds: int = SEEDS,
    **about: Any,
) -> pd.DataFrame:
    """Tune and measure what `path` does not hold yet; returns the means of `run_all` by method and shots.

    Rows are `Exam.measure`'s, with id_domain, `about` (what else tells these images from others in the file), method,
    shots and seed. All methods and all of `SHOTS` if none are named. Raises ValueError for an unknown method.
    """
    names = [find_method(name).name for name in methods or METHODS]
    domain, runs = images.id_domain, product(sorted(shots or SHOTS, reverse=True), range(seeds), names)
    keys = [{"id_domain": domain, **about, "method": name, "shots": n, "seed": seed} for n, seed, name in runs]
    exam = Exam.prepare(backbone, images)

    def run(key: Key) -> pd.DataFrame:
        method, number, seed = key["method"], key["shots"], key["seed"]
        config = recommended(method, backbone, number, seed, images.id_domain)
        tuned = METHODS[method].tune(backbone, images.few_shot(number, seed), config)
        return exam.measure(tuned, ALPHAS if number >= max(SHOTS) else (0.0, 0.5, 1.0), **key)

    return run_all(keys, run, path, [*about, "method", "shots"])


def run_severity(backbone: Backbone, path: Path, methods: list[str] | None = None, seeds: int = SEEDS) -> pd.DataFrame:
    """`run_few_shot` at 16 shots on photographs of each of `SEVERITIES`, with what was searched on the usual one."""
    names = methods or ["R-Adapter", "R-Adapter, stem", "FLYP", "LoRA"]
    for severity in SEVERITIES:
        images = load_images(id_domain="camera", severity=severity)
        table = run_few_shot(backbone, images, path, names, [16], seeds, severity=severity)
    return table


def run_full_data(
    backbone: Backbone, path: Path, methods: list[str] | None = None, shots: list[int] | None = None, seeds: int = 3
) -> pd.DataFrame:
    """`run_few_shot` on up to 20 photographs of every training design, with what was searched at 16 shots.

    All of them are 26,240 images, 320 a class.
    """
    images, names = load_images(id_domain="camera", views=20), methods or ["R-Adapter", "FLYP", "fine-tuning"]
    return run_few_shot(backbone, images, path, names, shots or [64, 320], seeds)


def run_by_image(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = SEEDS
) -> pd.DataFrame:
    """Tune on 16 shots and keep the answer to every test image, for intervals over images: `statistics.over_images`.

    Rows are id_domain, method, seed, alpha (0.5 and 1), domain, is_id, accuracy and right, "x" for each image of the
    domain that is answered right and "." for another. Of R-Adapter and FLYP if no methods are named.
    """

    def run(key: Key) -> pd.DataFrame:
        config = recommended(key["method"], backbone, 16, key["seed"], images.id_domain)
        tuned = METHODS[key["method"]].tune(backbone, images.few_shot(16, key["seed"]), config)
        told = examine(backbone, tuned, images.test, (0.5, 1.0) if tuned.has_alpha else None)[1]
        groups = told.groupby(["alpha", "domain", "is_id"], sort=False)["right"]
        marks = groups.agg(lambda right: "".join(right.map({True: "x", False: "."}))).rename("right")
        return (100 * groups.mean()).rename("accuracy").to_frame().join(marks).reset_index().assign(split="test", **key)

    names = [find_method(name).name for name in methods or ("R-Adapter", "FLYP")]
    keys = [{"id_domain": images.id_domain, "method": name, "seed": n} for n, name in product(range(seeds), names)]
    return run_all(keys, run, path, ["method"])
