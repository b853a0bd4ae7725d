"""Base to novel: half of the classes are tuned on, the other half never; how each half fares along α, and another set.

Source: Zhou et al. 2022 (CoCoOp). There the halves are fixed, here each seed draws its own; and there another data
set is met after tuning on all classes, here by the same models.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.few_shot import ALPHAS
from radapter_lite.bench.measuring import Exam, Key, run_all
from radapter_lite.data import ImageSet
from radapter_lite.data.glyphs import load_glyphs
from radapter_lite.methods.registry import METHODS, find_method, recommended

SHOTS = 16
# Those that can answer for names they were not tuned on; a head for classes cannot.
COMPARED = ("R-Adapter", "R-Adapter, stem", "FLYP", "LoRA", "CoOp", "CLIP-Adapter")


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
        parts = {"base": base, "novel": novel, "cross-dataset": load_glyphs()}
        exams = {name: Exam.prepare(backbone, part) for name, part in parts.items()}
        return pd.concat([exam.measure(tuned, ALPHAS, **key, part=name) for name, exam in exams.items()])

    return run_all(keys, run, path, ["part", "method"])


def halves(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """The images of half of the classes, drawn with `seed`, and of the others; the first half is the larger."""
    order = [images.classes[i] for i in np.random.default_rng(seed).permutation(len(images.classes))]
    middle = (len(order) + 1) // 2
    return images.only(sorted(order[:middle])), images.only(sorted(order[middle:]))
