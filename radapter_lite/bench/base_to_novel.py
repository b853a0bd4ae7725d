"""Base to novel: half of the classes are tuned on, the other half never; how each half fares along α, and another set.

Source: Zhou et al. 2022 (CoCoOp). There the halves are fixed, here each seed draws its own; and there another data
set is met after tuning on all classes, here by the same models.

In segmentation likewise: models are tuned on crops of one style and half of the names, measured on scenes of all.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.few_shot import ALPHAS
from radapter_lite.bench.runs import Exam, Key, run_all
from radapter_lite.data import ImageSet
from radapter_lite.data.glyphs import load_glyphs
from radapter_lite.data.scenes import draw_scenes
from radapter_lite.methods.registry import METHODS, find_method, recommended
from radapter_lite.tasks import Segmentation

SHOTS = 16
# Those that can answer for names they were not tuned on; a head for classes cannot.
COMPARED = ("R-Adapter", "R-Adapter, stem", "FLYP", "LoRA", "CoOp", "CLIP-Adapter")
# Of segmentation: the methods, and scenes of each style; training's hold every design.
SEGMENTING = ("R-Adapter", "FLYP", "LoRA", "fine-tuning")
TRAINING, TEST, VALIDATION = 400, 30, 20


def run_base_to_novel(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = 3
) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by part and method.

    Rows are `Exam.measure`'s, with id_domain, method, seed and part: "base", images and names of the tuned classes,
    "novel", those of the others, or "cross-dataset", those of `load_glyphs`.
    """
    names = [find_method(name).name for name in methods or COMPARED]
    keys = [{"id_domain": images.id_domain, "method": name, "seed": seed} for seed in range(seeds) for name in names]

    def run(key: Key) -> pd.DataFrame:
        base, novel = halves(images, key["seed"])
        config = recommended(key["method"], backbone, SHOTS, key["seed"], images.id_domain)
        tuned = METHODS[key["method"]].tune(backbone, base.few_shot(SHOTS, key["seed"]), config)
        parts = {"base": base, "novel": novel, "cross-dataset": load_glyphs()}.items()
        return pd.concat([Exam.prepare(backbone, own).measure(tuned, ALPHAS, **key, part=name) for name, own in parts])

    return run_all(keys, run, path, ["part", "method"])


def run_segmentation(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = 3
) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by masks and method.

    Rows are `Exam.measure`'s, with id_domain, method, seed and masks: "proposals", or the objects' own ("oracle").
    """
    names = [find_method(name).name for name in methods or SEGMENTING]
    keys = [{"id_domain": images.id_domain, "method": name, "seed": seed} for seed in range(seeds) for name in names]
    scenes = draw_scenes(images.test, TEST) + draw_scenes(images.validation, VALIDATION)
    about = images.classes, backbone.temperature
    tasks = {masks: Segmentation.of(scenes, *about, oracle=masks == "oracle") for masks in ("proposals", "oracle")}
    training = Segmentation.of(draw_scenes(images.train, TRAINING), *about, oracle=True)

    def run(key: Key) -> pd.DataFrame:
        base, _ = halves(training.images, key["seed"])
        config = recommended(key["method"], backbone, 4, key["seed"], images.id_domain)
        tuned = METHODS[key["method"]].tune(backbone, base.few_shot(4, key["seed"]), config)
        exams = {masks: Exam(backbone, replace(task, tuned_on=base.classes)) for masks, task in tasks.items()}
        alphas = sorted({*ALPHAS, 0.4})  # with the paper's
        return pd.concat([exam.measure(tuned, alphas, **key, masks=masks) for masks, exam in exams.items()])

    return run_all(keys, run, path, ["masks", "method"], "miou")


def halves(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """The images of half of the classes, drawn with `seed`, and of the others; the first half is the larger."""
    order = [images.classes[i] for i in np.random.default_rng(seed).permutation(len(images.classes))]
    middle = (len(order) + 1) // 2
    return images.only(sorted(order[:middle])), images.only(sorted(order[middle:]))
