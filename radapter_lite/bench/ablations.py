"""R-Adapter without its parts, and with other settings (notebook 07); its neighbours with what it has (notebook 08).

Accumulation and re-scaling do not act back on training and so cost no run of their own: one gives the live weights and
their averages under every momentum, and each of them is measured at α = 0.5 and 1. Of each neighbour the learning
rate, or its C, is searched first, in its method's own grid after half of the steps; these runs are rows too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from radapter_lite.backbone import Backbone
from radapter_lite.bench.few_shot import ALPHAS
from radapter_lite.bench.runs import Exam, Key, run_all
from radapter_lite.bench.search import SEED, run_variants
from radapter_lite.data import ImageSet
from radapter_lite.methods.objectives import pair_loss
from radapter_lite.methods.r_adapter import RAdapterConfig, attach, r_adapter
from radapter_lite.methods.registry import METHODS, epochs, for_backbone, recommended, trainer
from radapter_lite.settings import with_settings
from radapter_lite.tasks import Task, as_task
from radapter_lite.tuned import Tuned

SHOTS = {"outline": 4, "camera": 16}  # where a setting leaves room for differences
MOMENTA = (0.9, 0.95, 0.98, 0.99, 0.999)
INFO_NCE = {"multi_positive": False, "margin": 0.0, "smoothing": 0.0}
LIVE_TOO = ("R-Adapter", "adapter, InfoNCE", "dropping, InfoNCE")  # measured without accumulation as well
# By name, what is changed in R-Adapter's recommended settings.
VARIANTS: dict[str, dict[str, Any]] = {
    "R-Adapter": {},
    "adapter, InfoNCE": INFO_NCE | {"drop_prob": 0.0},
    "dropping, InfoNCE": INFO_NCE,
    "no dropping": {"drop_prob": 0.0},
    "no whitening": {"whitening": None},
    "margin, single positive": {"multi_positive": False},
    "dropout": {"drop": "number"},
    "drop-path": {"drop": "path"},
    **{f"rank {rank}": {"rank": rank} for rank in (1, 4, 16)},
    **{f"{tower} encoder": {"towers": (tower,)} for tower in ("image", "text")},
    **{f"p = {p}": {"drop_prob": p} for p in (0.2, 0.4)},
    # 0.25 is five of PictoCLIP's temperatures, as the paper's 0.05 is five of its own.
    **{f"δ = {margin:g}": {"margin": margin} for margin in (0.0, 0.1, 0.25)},
    **{f"ε = {smoothing:g}": {"smoothing": smoothing} for smoothing in (0.0, 0.1)},
    "τ = 0.01": {"temperature": 0.01},
    **{f"λ = {damping:g}": {"whitening": damping} for damping in (0.001, 0.1)},
    "stem": {"stem_lr": 1e-3},
    "stem, a third of the rate": {"stem_lr": 3e-4},
    "stem, three times the rate": {"stem_lr": 3e-3},
    "stem alone": {"stem_lr": 1e-3, "towers": ()},
}
PUBLISHED = {"drop_prob": 0.2, "momentum": 0.999}  # p and m
# By name: the method, what is changed in its settings, and how many times the usual epochs it gets.
NEIGHBOURS: dict[str, tuple[str, dict[str, Any], int]] = {
    "LoRA, stem": ("LoRA", {"stem_lr": 1e-3}, 1),
    "LoRA, whitened": ("LoRA", {"whitening": 0.01}, 1),
    "linear probe, whitened": ("linear probe", {"whitening": 0.01}, 1),
    "CLIP-Adapter, longer": ("CLIP-Adapter", {}, 4),
    "CoOp, longer": ("CoOp", {}, 4),
    "R-Adapter, longer": ("R-Adapter", {}, 4),
    "FLYP, longer": ("FLYP", {}, 4),
    "R-Adapter, stem, longer": ("R-Adapter, stem", {}, 4),
    "LP-FT, longer": ("LP-FT", {}, 4),
    # As many steps as m = 0.999 needs to forget all but an eighth of its zero start.
    "R-Adapter, as published": ("R-Adapter, unwhitened", PUBLISHED, 8),
    "R-Adapter, as published, rank 4": ("R-Adapter, unwhitened", PUBLISHED | {"rank": 4}, 8),
}


def run_ablations(backbone: Backbone, images: ImageSet, path: Path, seeds: int = 5) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by variant and momentum.

    Rows are `Exam.measure`'s, with id_domain, variant, momentum (0 is without accumulation) and seed.
    """
    exam, domain = Exam.prepare(backbone, images), images.id_domain
    keys = [{"id_domain": domain, "variant": name, "seed": seed} for seed in range(seeds) for name in VARIANTS]

    def run(key: Key) -> pd.DataFrame:
        config = variant_config(backbone, images, key["variant"], key["seed"])
        few, own = images.few_shot(SHOTS.get(domain, 4), key["seed"]), config.adapter.momentum
        if key["variant"] in LIVE_TOO:
            found = tune_with_momenta(backbone, few, config, MOMENTA if key["variant"] == "R-Adapter" else (own,))
        else:
            found = {own: r_adapter(backbone, few, config)}
        return pd.concat([exam.measure(tuned, (0.5, 1.0), **key, momentum=m) for m, tuned in found.items()])

    return run_all(keys, run, path, ["variant", "momentum"])


def variant_config(backbone: Backbone, images: ImageSet, name: str, seed: int) -> RAdapterConfig:
    """R-Adapter's recommended settings with one of `VARIANTS` in them."""
    shots = SHOTS.get(images.id_domain, 4)
    return with_settings(recommended("R-Adapter", backbone, shots, seed, images.id_domain), VARIANTS[name])


def tune_with_momenta(
    backbone: Backbone, images: ImageSet | Task, config: RAdapterConfig, momenta: tuple[float, ...]
) -> Mapping[float, Tuned]:
    """One training of adapters, and what it gives under each momentum; under 0, the live weights of its end."""
    task = as_task(images)
    adapters = attach(backbone, task, config)
    averages = {m: {site: torch.zeros_like(adapters[site].average) for site in adapters.sites} for m in (0.0, *momenta)}

    @torch.no_grad()
    def accumulate() -> None:
        for site in adapters.sites:
            live = adapters[site].matrix()
            for m, average in averages.items():
                average[site].lerp_(live, 1 - m)

    train = trainer("R-Adapter", backbone, task, config)
    loss = pair_loss(backbone, task, config.criterion)
    try:
        history = train(loss, adapters.parameters(), after_step=accumulate, adapters=adapters)
    finally:
        adapters.remove()
    found = {}
    for m, average in averages.items():
        for site, matrix in average.items():
            adapters[site].average = matrix
        found[m] = Tuned(adapters.delta(backbone=backbone), history, adapters.num_parameters, "R-Adapter", config)
    return found


def run_neighbours(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = 3
) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by variant.

    Rows are `Exam.measure`'s, with id_domain, variant, value (of what was searched) and seed. Raises ValueError for
    methods that are none of `NEIGHBOURS`; all of them if none are named.
    """
    names = methods or list(NEIGHBOURS)
    if unknown := [name for name in names if name not in NEIGHBOURS]:
        raise ValueError(f"{unknown[0]} is no variant; there are {', '.join(NEIGHBOURS)}")
    exam = Exam.prepare(backbone, images)
    validation = Exam.prepare(backbone, images.select(domain=images.id_domain, split="validation"))

    def run(key: Key, values: object) -> pd.DataFrame:
        method, settings, longer = NEIGHBOURS[key["variant"]]
        known, searching = METHODS[method], key["seed"] == SEED
        loop = {"seed": key["seed"], "epochs": longer * epochs(16) // (2 if searching else 1)}
        settings = settings | {known.searched: key["value"]} | (loop if known.trains else {})
        if searching and "momentum" in settings:  # half of the steps would keep more of the zero start
            settings["momentum"] **= 2
        tuned = known.tune(backbone, images.few_shot(16, key["seed"]), for_backbone(method, backbone, settings))
        return (validation if searching else exam).measure(tuned, (1.0,) if searching else ALPHAS, **key)

    grids = {name: METHODS[NEIGHBOURS[name][0]].grid for name in names}
    return run_variants(images.id_domain, names, grids, run, path, seeds)
