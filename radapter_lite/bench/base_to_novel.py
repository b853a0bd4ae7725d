"""Base to novel: half of the classes are tuned on, the other half never; how each half fares along α, and another set.

Source: Zhou et al. 2022 (CoCoOp). There the halves are fixed, here each seed draws its own; and there the other data
set is met after tuning on all classes, here by the same models.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.few_shot import ALPHAS
from radapter_lite.bench.measuring import Exam
from radapter_lite.data import ImageSet
from radapter_lite.data.glyphs import load_glyphs
from radapter_lite.methods.registry import METHODS, find_method, recommended
from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing

SHOTS = 16
# Those that can answer for names they were not tuned on; a head for classes cannot.
COMPARED = ("R-Adapter", "R-Adapter, stem", "FLYP", "LoRA", "CoOp", "CLIP-Adapter")


def run_base_to_novel(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = 3
) -> None:
    """Run what `path` does not hold yet, and add its rows: `Exam.measure`'s, with id_domain, method, seed and part.

    part is "base", images and names of the tuned classes, "novel", those of the others, or "cross-dataset", those of
    `load_glyphs`.
    """
    names = [find_method(name).name for name in methods or COMPARED]
    keys = [{"id_domain": images.id_domain, "method": name, "seed": seed} for seed in range(seeds) for name in names]
    for key in progress(missing(keys, path), "base to novel"):
        method, seed = str(key["method"]), int(str(key["seed"]))
        base, novel = halves(images, seed)
        few = base.few_shot(SHOTS, seed)
        tuned = METHODS[method].tune(backbone, few, recommended(method, backbone, SHOTS, seed, images.id_domain))
        rows = [
            Exam.prepare(backbone, part).measure(tuned, ALPHAS, **key, part=name)
            for name, part in (("base", base), ("novel", novel), ("cross-dataset", load_glyphs()))
        ]
        add_rows(pd.concat(rows), path)


def halves(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """The images of half of the classes, drawn with `seed`, and of the others; the first half is the larger."""
    order = [images.classes[i] for i in np.random.default_rng(seed).permutation(len(images.classes))]
    middle = (len(order) + 1) // 2
    return images.only(sorted(order[:middle])), images.only(sorted(order[middle:]))
