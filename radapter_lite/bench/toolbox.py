"""Few-shot tricks on R-Adapter, each alone, all together, and the ensemble of them: the tables of notebook 13.

All variants of a seed see the same few images and take as many steps. A trick's one value is chosen first, on ID
validation images, after half of the steps, from images of a seed that no measured run uses; these runs are rows too.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from radapter_lite.backbone import Backbone
from radapter_lite.bench.runs import Exam, Key
from radapter_lite.bench.search import SEED, run_variants
from radapter_lite.data import ImageSet
from radapter_lite.methods.registry import LOOP, epochs, recommended, tune
from radapter_lite.methods.unlabelled import averaged, pretrain, pseudo_labels, since, study
from radapter_lite.settings import with_settings
from radapter_lite.tasks.classification import report
from radapter_lite.tuned import Tuned

METHOD, SHOTS, ALPHAS, PRETRAINING_STEPS = "R-Adapter", 4, (0.5, 1.0), 100
ONE_PROMPT = ("an icon of a {}",)
# What of each trick the search chooses, and what it tries.
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "mixup": ("mixup", (0.2, 1.0)),
    "manifold mixup": ("mixup", (0.2, 1.0)),
    "adversarial": ("adversarial", (0.01, 0.03, 0.1, 0.3)),
    "R-Drop": ("r_drop", (0.1, 0.3, 1.0)),
    "self-training": ("threshold", (0.5, 0.8)),
    "TAPT": ("lr of pretraining", (1e-4, 5e-4)),
    "DAPT": ("lr of pretraining", (1e-4, 5e-4)),
}
OF_THE_LOOP = ("mixup", "manifold mixup", "adversarial", "R-Drop")
TOGETHER = ("mixup", "adversarial", "R-Drop", "self-training", "DAPT")
VARIANTS = ("plain", "one prompt", *GRIDS, "together", "ensemble")  # the ensemble is of the tricks, each alone


def models(
    backbone: Backbone, images: ImageSet, seed: int, values: Mapping[str, float], share: float = 1.0
) -> Callable[..., Tuned]:
    """A function that gives the model of any variant but the ensemble, on the few images of a seed; each is made once.

    `values` are of the tricks it will be asked for; `share` is of the recommended epochs, and of pretraining's steps.
    """
    few, train = images.few_shot(SHOTS, seed), images.select(domain=images.id_domain, split="train")

    @cache
    def adapted(trick: str) -> Backbone:
        loop = replace(LOOP, steps=int(share * PRETRAINING_STEPS), lr=values[trick], seed=seed)
        return pretrain(backbone, few if trick == "TAPT" else train, loop)

    @cache
    def told() -> ImageSet:
        return pseudo_labels(backbone, [tuned("plain"), tuned("plain", SEED)], few, train, values["self-training"])

    @cache
    def tuned(variant: str, shift: int = 0) -> Tuned:
        on = TOGETHER if variant == "together" else (variant,)
        settings: dict[str, Any] = {GRIDS[trick][0]: values[trick] for trick in on if trick in OF_THE_LOOP}
        settings |= {"epochs": int(share * epochs(SHOTS))}
        settings |= {"mixup_layer": "random"} if variant == "manifold mixup" else {}
        config = with_settings(recommended(METHOD, backbone, SHOTS, seed + shift, images.id_domain), settings)
        start = replace(backbone, prompts=ONE_PROMPT) if variant == "one prompt" else backbone
        pretrained = next((trick for trick in on if trick in ("TAPT", "DAPT")), None)
        start = adapted(pretrained) if pretrained else start
        own = study(start, few, told(), METHOD, config) if "self-training" in on else tune(start, few, METHOD, config)
        return since(backbone, start, own) if pretrained else own

    return tuned


def run_toolbox(backbone: Backbone, images: ImageSet, path: Path, seeds: int = 5) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by variant.

    Rows are `report`'s, with forgotten, id_domain, variant, value (the trick's, 0 without one), seed, alpha and split.
    """
    exam, single = (Exam.prepare(clip, images) for clip in (backbone, replace(backbone, prompts=ONE_PROMPT)))
    validation = Exam.prepare(backbone, images.select(domain=images.id_domain, split="validation"))
    kept: dict[int | str, Any] = {}  # the models of the seed at hand, and what each variant of it said

    def said(variant: str, seed: int) -> list[Tensor]:
        if variant == "ensemble":
            pairs = zip(*(said(member, seed) for member in GRIDS), strict=True)
            return [averaged(each, backbone.temperature) for each in pairs]
        if variant not in kept:
            asked = single if variant == "one prompt" else exam
            kept[variant] = [answers(asked, kept[seed](variant), alpha) for alpha in ALPHAS]
        return kept[variant]

    def run(key: Key, values: Mapping[str, float]) -> pd.DataFrame:
        variant, seed = key["variant"], key["seed"]
        if seed == SEED:
            tuned = models(backbone, images, SEED, {variant: key["value"]}, share=0.5)(variant)
            return measured(validation, answers(validation, tuned, 1.0)).assign(**key, alpha=1.0)
        if seed not in kept:
            kept.clear()
            kept[seed] = models(backbone, images, seed, values)
        pairs = zip(ALPHAS, said(variant, seed), strict=True)
        return pd.concat([measured(exam, each).assign(**key, alpha=alpha) for alpha, each in pairs])

    grids = {trick: grid for trick, (_, grid) in GRIDS.items()}
    return run_variants(images.id_domain, VARIANTS, grids, run, path, seeds)


def answers(exam: Exam, tuned: Tuned, alpha: float) -> Tensor:
    """Similarities on the exam's images [N, T], in bfloat16; in float32 they would take longer than training does."""
    with torch.autocast(exam.backbone.device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        return tuned.similarities(exam.backbone, exam.task, alpha).float()


def measured(exam: Exam, similarities: Tensor) -> pd.DataFrame:
    """A row for each split and domain."""
    images, temperature = exam.task.images, exam.backbone.temperature
    parts = [
        report(similarities[rows], images.take(rows), temperature, exam.zero_shot[rows]).assign(split=split)
        for split, rows in images.table.groupby("split").indices.items()
    ]
    return pd.concat(parts, ignore_index=True)
