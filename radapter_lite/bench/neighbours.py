"""What R-Adapter has, given to its neighbours, and more time to those that may need it: a table of notebook 08.

The learning rate of each variant, or its C, is searched first: its method's own grid, on ID validation images, after
half of the steps, from images of a seed that no measured run uses. These runs are rows too.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.few_shot import ALPHAS
from radapter_lite.bench.measuring import Exam, Key
from radapter_lite.bench.search import SEED, run_variants
from radapter_lite.data import ImageSet
from radapter_lite.methods.registry import METHODS, epochs, for_backbone

SHOTS = 16
PUBLISHED = {"drop_prob": 0.2, "momentum": 0.999}  # p and m
# By name: the method, what is changed in its settings, and how many times the usual epochs it gets.
VARIANTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "LoRA, stem": ("LoRA", {"stem_lr": 1e-3}, 1),
    "LoRA, whitened": ("LoRA", {"whitening": 0.01}, 1),
    "linear probe, whitened": ("linear probe", {"whitening": 0.01}, 1),
    "CLIP-Adapter, longer": ("CLIP-Adapter", {}, 4),
    "CoOp, longer": ("CoOp", {}, 4),
    "R-Adapter, longer": ("R-Adapter", {}, 4),
    # As many steps as m = 0.999 needs to forget all but an eighth of its zero start.
    "R-Adapter, as published": ("R-Adapter, unwhitened", PUBLISHED, 8),
    "R-Adapter, as published, rank 4": ("R-Adapter, unwhitened", PUBLISHED | {"rank": 4}, 8),
}


def run_neighbours(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = 3
) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by variant.

    Rows are `Exam.measure`'s, with id_domain, variant, value (of what was searched) and seed. Raises ValueError for
    methods that are none of `VARIANTS`; all of them if none are named.
    """
    names = methods or list(VARIANTS)
    if unknown := [name for name in names if name not in VARIANTS]:
        raise ValueError(f"{unknown[0]} is no variant; there are {', '.join(VARIANTS)}")
    exam = Exam.prepare(backbone, images)
    validation = Exam.prepare(backbone, images.select(domain=images.id_domain, split="validation"))

    def run(key: Key, values: object) -> pd.DataFrame:
        method, settings, longer = VARIANTS[key["variant"]]
        known, searching = METHODS[method], key["seed"] == SEED
        loop = {"seed": key["seed"], "epochs": longer * epochs(SHOTS) // (2 if searching else 1)}
        settings = settings | {str(known.searched): key["value"]} | (loop if known.trains else {})
        if searching and "momentum" in settings:  # half of the steps would keep more of the zero start
            settings["momentum"] **= 2
        tuned = known.tune(backbone, images.few_shot(SHOTS, key["seed"]), for_backbone(method, backbone, settings))
        return (validation if searching else exam).measure(tuned, (1.0,) if searching else ALPHAS, **key)

    grids = {name: METHODS[VARIANTS[name][0]].grid for name in names}
    return run_variants(images.id_domain, names, grids, run, path, seeds)
