"""Segmentation: tuned on crops of one style and half of the names, measured on scenes of every style, along α."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.base_to_novel import halves
from radapter_lite.bench.few_shot import ALPHAS
from radapter_lite.bench.measuring import Exam, Key, run_all
from radapter_lite.data import ImageSet
from radapter_lite.data.scenes import draw_scenes
from radapter_lite.methods.registry import METHODS, find_method, recommended
from radapter_lite.tasks import Segmentation

SHOTS = 4
TRAINING, TEST, VALIDATION = 400, 30, 20  # scenes of each style; training's hold every design
COMPARED = ("R-Adapter", "FLYP", "LoRA", "fine-tuning")


def run_segmentation(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = 3
) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by masks and method.

    Rows are `Exam.measure`'s, with id_domain, method, seed and masks: "proposals", or the objects' own ("oracle").
    """
    names = [find_method(name).name for name in methods or COMPARED]
    keys = [{"id_domain": images.id_domain, "method": name, "seed": seed} for seed in range(seeds) for name in names]
    scenes = draw_scenes(images.test, TEST) + draw_scenes(images.validation, VALIDATION)
    about = images.classes, backbone.temperature
    tasks = {masks: Segmentation.of(scenes, *about, oracle=masks == "oracle") for masks in ("proposals", "oracle")}
    training = Segmentation.of(draw_scenes(images.train, TRAINING), *about, oracle=True)

    def run(key: Key) -> pd.DataFrame:
        base, _ = halves(training.images, key["seed"])
        config = recommended(key["method"], backbone, SHOTS, key["seed"], images.id_domain)
        tuned = METHODS[key["method"]].tune(backbone, base.few_shot(SHOTS, key["seed"]), config)
        exams = {masks: Exam(backbone, replace(task, tuned_on=base.classes)) for masks, task in tasks.items()}
        alphas = sorted({*ALPHAS, 0.4})  # with the paper's
        return pd.concat([exam.measure(tuned, alphas, **key, masks=masks) for masks, exam in exams.items()])

    return run_all(keys, run, path, ["masks", "method"], "miou")
