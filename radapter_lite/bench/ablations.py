"""R-Adapter without its parts, and with other values of its settings, over seeds: the tables of notebook 07.

Accumulation and re-scaling do not act back on training and so cost no run of their own: one gives the live weights and
their averages under every momentum, and each of them is measured at α = 0.5 and 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from radapter_lite.backbone import Backbone
from radapter_lite.bench.measuring import Exam, Key, run_all
from radapter_lite.data import ImageSet
from radapter_lite.methods.objectives import pair_loss
from radapter_lite.methods.r_adapter import RAdapterConfig, attach, r_adapter
from radapter_lite.methods.registry import recommended
from radapter_lite.methods.trainer import trainer
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
    "λ = 0.001": {"whitening": 0.001},
    "λ = 0.1": {"whitening": 0.1},
    "stem": {"stem_lr": 1e-3},
    "stem, a third of the rate": {"stem_lr": 3e-4},
    "stem, three times the rate": {"stem_lr": 3e-3},
    "stem alone": {"stem_lr": 1e-3, "towers": ()},
}


def run_ablations(backbone: Backbone, images: ImageSet, path: Path, seeds: int = 5) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by variant and momentum.

    Rows are `Exam.measure`'s, with id_domain, variant, momentum (0 is without accumulation) and seed.
    """
    exam = Exam.prepare(backbone, images)
    domain = images.id_domain
    keys = [{"id_domain": domain, "variant": name, "seed": seed} for seed in range(seeds) for name in VARIANTS]

    def run(key: Key) -> pd.DataFrame:
        config = variant_config(backbone, images, key["variant"], key["seed"])
        few = images.few_shot(SHOTS.get(images.id_domain, 4), key["seed"])
        if key["variant"] not in LIVE_TOO:
            tuned = r_adapter(backbone, few, config)
            return exam.measure(tuned, (0.5, 1.0), **key, momentum=config.adapter.momentum)
        momenta = MOMENTA if key["variant"] == "R-Adapter" else (config.adapter.momentum,)
        found = tune_with_momenta(backbone, few, config, momenta)
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
