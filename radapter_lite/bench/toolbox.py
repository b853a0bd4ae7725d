"""Few-shot tricks on R-Adapter, each alone, all together, and the ensemble of them: the tables of notebook 13.

All variants of a seed see the same few images and take as many steps. A trick's one value is chosen first, on ID
validation images, from draws of a seed that no measured run uses; these runs are rows too, of that seed.
Answers are computed in the precision of training, which is where most of the time would go otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from radapter_lite.backbone import Backbone
from radapter_lite.bench.measuring import Exam
from radapter_lite.bench.search import SEED
from radapter_lite.data import ImageSet
from radapter_lite.methods.registry import LOOP, epochs, recommended, tune
from radapter_lite.methods.unlabelled import averaged, beyond, pretrain, pseudo_labels, since, study
from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing, read_rows
from radapter_lite.settings import with_settings
from radapter_lite.statistics import mean_and_interval, summarize
from radapter_lite.tasks.classification import forgotten_by_domain, report
from radapter_lite.tuned import Tuned

METHOD, SHOTS, ALPHAS = "R-Adapter", 4, (0.5, 1.0)
# Each trick's own value, and what the search tries for it.
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "mixup": ("mixup", (0.2, 1.0)),
    "manifold mixup": ("mixup", (0.2, 1.0)),
    "adversarial": ("adversarial", (0.03, 0.1, 0.3)),
    "R-Drop": ("r_drop", (0.1, 0.3, 1.0)),
    "self-training": ("threshold", (0.5, 0.8)),
    "TAPT": ("lr", (1e-4, 3e-4, 1e-3)),
    "DAPT": ("lr", (1e-4, 3e-4, 1e-3)),
}
VARIANTS = ("plain", "one prompt", *GRIDS, "together", "ensemble")
PRETRAINING = replace(LOOP, steps=100)


@dataclass
class Draw:
    """A few images of one seed, and what each variant makes of them; what several variants need is made once."""

    backbone: Backbone
    images: ImageSet
    seed: int
    values: dict[str, float]  # of each trick
    share: float = 1.0  # of the recommended epochs, and of the pretraining's steps
    made: dict[Any, Any] = field(default_factory=dict)

    def tuned(self, variant: str) -> Tuned:
        """The model of any variant but the ensemble."""
        return self._once((variant, self.values.get(variant)), lambda: self._tune(variant))

    def _tune(self, variant: str) -> Tuned:
        config = recommended(METHOD, self.backbone, SHOTS, self.seed, self.images.id_domain)
        config = with_settings(config, {"epochs": int(self.share * epochs(SHOTS))} | self._settings(variant))
        few = self.images.few_shot(SHOTS, self.seed)
        if variant == "one prompt":
            return tune(one_prompt(self.backbone), few, METHOD, config)
        if variant == "second teacher":
            return tune(self.backbone, few, METHOD, config, seed=self.seed + SEED)
        if variant == "self-training":
            return study(self.backbone, few, self._told(few), METHOD, config)
        if variant == "together":
            adapted = self._adapted("DAPT", self.images.select(domain=self.images.id_domain, split="train"))
            return since(self.backbone, adapted, study(adapted, few, self._told(few), METHOD, config))
        if variant in ("TAPT", "DAPT"):
            own = few if variant == "TAPT" else self.images.select(domain=self.images.id_domain, split="train")
            adapted = self._adapted(variant, own)
            return since(self.backbone, adapted, tune(adapted, few, METHOD, config))
        return tune(self.backbone, few, METHOD, config)

    def _settings(self, variant: str) -> dict[str, Any]:
        on = ("mixup", "adversarial", "R-Drop") if variant == "together" else (variant,)
        names = {trick: name for trick, (name, _) in GRIDS.items() if name in ("mixup", "adversarial", "r_drop")}
        layer = {"mixup_layer": "random"} if variant == "manifold mixup" else {}
        return {names[trick]: self.values[trick] for trick in on if trick in names} | layer

    def _told(self, few: ImageSet) -> ImageSet:
        teachers = [self.tuned("plain"), self.tuned("second teacher")]
        threshold = self.values["self-training"]
        more = beyond(self.images, few)
        return self._once(("told", threshold), lambda: pseudo_labels(self.backbone, teachers, few, more, threshold))

    def _adapted(self, variant: str, images: ImageSet) -> Backbone:
        lr, steps = self.values[variant], int(self.share * (PRETRAINING.steps or 0))
        config = replace(PRETRAINING, lr=lr, steps=steps, seed=self.seed)
        return self._once(("adapted", variant, lr), lambda: pretrain(self.backbone, images, config))

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]


def one_prompt(backbone: Backbone) -> Backbone:
    """The backbone with the first of its prompts that has words around the name, and no other."""
    return replace(backbone, prompts=next((p,) for p in backbone.prompts if p != "{}"))


def run_toolbox(backbone: Backbone, images: ImageSet, path: Path, seeds: int) -> pd.DataFrame:
    """Run what `path` does not hold yet, and add its rows: `classification.report`'s, with forgotten.

    And with id_domain, variant, value (of the trick; 0 for none), seed, alpha, split and pseudo_labels, the number of
    images that teachers labelled. Returns ID and OOD at α = 1, means and intervals over seeds.
    """
    values = choose_values(backbone, images, path)
    exams = {True: Exam.prepare(one_prompt(backbone), images), False: Exam.prepare(backbone, images)}
    draw = Draw(backbone, images, -1, values)
    said: dict[str, list[Tensor]] = {}
    for key in progress(missing(_keys(images, values, range(seeds), VARIANTS), path), "toolbox"):
        if draw.seed != key["seed"]:
            draw, said = Draw(backbone, images, key["seed"], values), {}
        variant = key["variant"]
        exam = exams[variant == "one prompt"]
        for member in GRIDS if variant == "ensemble" else (variant,):
            if member not in said:
                said[member] = [answers(exam, draw.tuned(member), alpha) for alpha in ALPHAS]
        if variant == "ensemble":
            pairs = zip(*(said[member] for member in GRIDS), strict=True)
            said[variant] = [averaged(each, backbone.temperature) for each in pairs]
        told = 0 if variant == "ensemble" else draw.tuned(variant).meta.get("pseudo_labels", 0)
        rows = [measured(exam, own).assign(alpha=alpha) for alpha, own in zip(ALPHAS, said[variant], strict=True)]
        add_rows(pd.concat(rows).assign(**key, pseudo_labels=told), path)
    table = read_rows(path).query("id_domain == @images.id_domain and split == 'test' and alpha == 1")
    return mean_and_interval(summarize(table, ["variant", "seed"]), ["variant"])


def choose_values(backbone: Backbone, images: ImageSet, path: Path) -> dict[str, float]:
    """The value of each trick with the highest accuracy on ID validation images, at α = 1 after half the steps."""
    exam = Exam.prepare(backbone, images.select(domain=images.id_domain, split="validation"))
    draw = Draw(backbone, images, SEED, {}, share=0.5)
    for trick, (_, grid) in GRIDS.items():
        for value in grid:
            draw.values[trick] = value
            for key in missing(_keys(images, {trick: value}, [SEED], [trick]), path):
                rows = measured(exam, answers(exam, draw.tuned(trick), 1.0))
                add_rows(rows.assign(**key, alpha=1.0), path)
    found = read_rows(path).query("id_domain == @images.id_domain and seed == @SEED")
    best = found.loc[found.groupby("variant")["accuracy"].idxmax()]
    return dict(zip(best["variant"], best["value"], strict=True))


def _keys(images: ImageSet, values: dict[str, float], seeds: Any, variants: Any) -> list[dict[str, Any]]:
    own = {"id_domain": images.id_domain}
    return [own | {"variant": v, "value": values.get(v, 0.0), "seed": seed} for seed in seeds for v in variants]


def answers(exam: Exam, tuned: Tuned, alpha: float) -> Tensor:
    """Similarities on the exam's images [N, T], computed in the precision of training."""
    half = LOOP.precision == "bfloat16"
    with torch.autocast(exam.backbone.device.type, torch.bfloat16, enabled=half), sdpa_kernel(SDPBackend.MATH):
        return tuned.similarities(exam.backbone, exam.task, alpha).float()


def measured(exam: Exam, similarities: Tensor) -> pd.DataFrame:
    """A row a split and domain."""
    images, parts = exam.task.images, []
    for split in images.table["split"].unique():
        rows = np.flatnonzero(images.table["split"] == split)
        own, now = images.take(rows), similarities[rows]
        lost = forgotten_by_domain(now, exam.zero_shot[rows], own)
        table = report(now, own, exam.backbone.temperature)
        parts.append(table.assign(forgotten=table["domain"].map(lost), split=split))
    return pd.concat(parts, ignore_index=True)
