"""Few-shot tricks on R-Adapter, each alone, all together, and the ensemble of them: the tables of notebook 13.

All variants of a seed see the same few images and take as many steps. A trick's one value is chosen first, on ID
validation images, after half of the steps, from images of a seed that no measured run uses; these runs are rows too.
Answers are computed in the precision of training, or they would take longer than training does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from radapter_lite.backbone import Backbone
from radapter_lite.bench.measuring import Exam
from radapter_lite.bench.search import SEED
from radapter_lite.data import ImageSet
from radapter_lite.methods.registry import LOOP, epochs, recommended, tune
from radapter_lite.methods.unlabelled import averaged, pretrain, pseudo_labels, since, study
from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing, read_rows
from radapter_lite.settings import with_settings
from radapter_lite.statistics import mean_and_interval, summarize
from radapter_lite.tasks.classification import forgotten_by_domain, report
from radapter_lite.tuned import Tuned

METHOD, SHOTS, ALPHAS, PRETRAINING_STEPS = "R-Adapter", 4, (0.5, 1.0), 100
ONE_PROMPT = ("an icon of a {}",)
# What of each trick the search chooses, and what it tries.
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "mixup": ("mixup", (0.2, 1.0)),
    "manifold mixup": ("mixup", (0.2, 1.0)),
    "adversarial": ("adversarial", (0.03, 0.1, 0.3)),
    "R-Drop": ("r_drop", (0.1, 0.3, 1.0)),
    "self-training": ("threshold", (0.5, 0.8)),
    "TAPT": ("lr of pretraining", (1e-4, 5e-4)),
    "DAPT": ("lr of pretraining", (1e-4, 5e-4)),
}
OF_THE_LOOP = ("mixup", "adversarial", "r_drop")
TOGETHER = ("mixup", "adversarial", "R-Drop", "self-training", "DAPT")
VARIANTS = ("plain", "one prompt", *GRIDS, "together", "ensemble")  # the ensemble is of the tricks, each alone


@dataclass(frozen=True, eq=False)
class Draw:
    """The few images of a seed and what the tricks make of them, given each one's value, after a share of the steps."""

    backbone: Backbone
    images: ImageSet
    seed: int
    values: Mapping[str, float]
    share: float = 1.0

    @cached_property
    def few(self) -> ImageSet:
        return self.images.few_shot(SHOTS, self.seed)

    @cached_property
    def train(self) -> ImageSet:
        return self.images.select(domain=self.images.id_domain, split="train")

    @cached_property
    def told(self) -> ImageSet:
        """More images of the ID domain, with the labels that two teachers agree on."""
        teachers = [self.tuned("plain"), self.tuned("plain", self.seed + SEED)]
        return pseudo_labels(self.backbone, teachers, self.few, self.train, self.values["self-training"])

    @cached_property
    def made(self) -> dict[tuple[str, object], Any]:
        """Models and adapted backbones, so that those which several variants need are made once."""
        return {}

    def tuned(self, variant: str, seed: int | None = None) -> Tuned:
        """The model of any variant but the ensemble."""
        key = variant, self.seed if seed is None else seed
        if key not in self.made:
            self.made[key] = self._tune(*key)
        return self.made[key]

    def adapted(self, trick: str) -> Backbone:
        """The backbone after continued pretraining: TAPT on the few images, DAPT on all training images of ID."""
        key, lr = ("adapted", trick), self.values[trick]
        if key not in self.made:
            own = self.few if trick == "TAPT" else self.train
            loop = replace(LOOP, steps=int(self.share * PRETRAINING_STEPS), lr=lr, seed=self.seed)
            self.made[key] = pretrain(self.backbone, own, loop)
        return self.made[key]

    def _tune(self, variant: str, seed: int) -> Tuned:
        on = TOGETHER if variant == "together" else (variant,)
        settings = {GRIDS[t][0]: self.values[t] for t in on if t in GRIDS and GRIDS[t][0] in OF_THE_LOOP}
        layer = {"mixup_layer": "random"} if variant == "manifold mixup" else {}
        config = recommended(METHOD, self.backbone, SHOTS, seed, self.images.id_domain)
        config = with_settings(config, {"epochs": int(self.share * epochs(SHOTS)), **settings, **layer})
        start = replace(self.backbone, prompts=ONE_PROMPT) if variant == "one prompt" else self.backbone
        pretrained = next((trick for trick in on if trick in ("TAPT", "DAPT")), None)
        if pretrained:
            start = self.adapted(pretrained)
        if "self-training" in on:
            tuned = study(start, self.few, self.told, METHOD, config)
        else:
            tuned = tune(start, self.few, METHOD, config)
        return since(self.backbone, start, tuned) if pretrained else tuned


def run_toolbox(backbone: Backbone, images: ImageSet, path: Path, seeds: int) -> pd.DataFrame:
    """Run what `path` does not hold yet, and add its rows: `report`'s, with forgotten, id_domain, variant, value, ...

    And seed, alpha and split; value is the trick's, 0 where it has none. Returns ID and OOD at α = 1 over seeds.
    """
    domain, exam = images.id_domain, Exam.prepare(backbone, images)
    single = Exam.prepare(replace(backbone, prompts=ONE_PROMPT), images)
    validation = Exam.prepare(backbone, images.select(domain=domain, split="validation"))
    tried = [(trick, value, SEED) for trick, (_, grid) in GRIDS.items() for value in grid]
    for key in progress(missing(_keys(domain, tried), path), "searching"):
        draw = Draw(backbone, images, SEED, {key["variant"]: key["value"]}, share=0.5)
        rows = measured(validation, answers(validation, draw.tuned(key["variant"]), 1.0))
        add_rows(rows.assign(**key, alpha=1.0), path)
    found = read_rows(path).query("id_domain == @domain and seed == @SEED")
    best = found.loc[found.groupby("variant")["accuracy"].idxmax()]
    values = dict(zip(best["variant"], best["value"], strict=True))
    wanted = [(variant, values.get(variant, 0.0), seed) for seed in range(seeds) for variant in VARIANTS]
    draw, said = Draw(backbone, images, -1, values), dict[str, list[Tensor]]()
    for key in progress(missing(_keys(domain, wanted), path), "toolbox"):
        if draw.seed != key["seed"]:
            draw, said = Draw(backbone, images, key["seed"], values), {}
        variant, own = key["variant"], single if key["variant"] == "one prompt" else exam
        for member in GRIDS if variant == "ensemble" else (variant,):
            if member not in said:
                said[member] = [answers(own, draw.tuned(member), alpha) for alpha in ALPHAS]
        if variant == "ensemble":
            pairs = zip(*(said[member] for member in GRIDS), strict=True)
            said[variant] = [averaged(each, backbone.temperature) for each in pairs]
        rows = [measured(own, each).assign(alpha=a) for a, each in zip(ALPHAS, said[variant], strict=True)]
        add_rows(pd.concat(rows).assign(**key), path)
    table = read_rows(path).query("id_domain == @domain and split == 'test' and alpha == 1")
    return mean_and_interval(summarize(table, ["variant", "seed"]), ["variant"])


def _keys(domain: str, runs: list[tuple[str, float, int]]) -> list[dict]:
    return [{"id_domain": domain, "variant": variant, "value": value, "seed": seed} for variant, value, seed in runs]


def answers(exam: Exam, tuned: Tuned, alpha: float) -> Tensor:
    """Similarities on the exam's images [N, T], computed in the precision of training."""
    half = LOOP.precision == "bfloat16"
    with torch.autocast(exam.backbone.device.type, torch.bfloat16, enabled=half), sdpa_kernel(SDPBackend.MATH):
        return tuned.similarities(exam.backbone, exam.task, alpha).float()


def measured(exam: Exam, similarities: Tensor) -> pd.DataFrame:
    """A row for each split and domain."""
    images, parts = exam.task.images, []
    for split, rows in images.table.groupby("split").indices.items():
        own, now = images.take(rows), similarities[rows]
        lost = forgotten_by_domain(now, exam.zero_shot[rows], own)
        table = report(now, own, exam.backbone.temperature)
        parts.append(table.assign(forgotten=table["domain"].map(lost), split=split))
    return pd.concat(parts, ignore_index=True)
