"""What every bench is: a list of independent runs, of which those missing are run, measured by an exam and kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from radapter_lite.alpha_choice import unlabelled_statistics
from radapter_lite.backbone import Backbone
from radapter_lite.bench.runs import Key, Run, run_missing
from radapter_lite.data import ImageSet
from radapter_lite.encoding import predict
from radapter_lite.evaluation import along
from radapter_lite.statistics import mean_and_interval, summarize
from radapter_lite.tasks import Task, as_task
from radapter_lite.tuned import Tuned


def run_all(keys: list[Key], run: Run, path: Path, by: list[str], metric: str = "accuracy") -> pd.DataFrame:
    """`run_missing` of keys of one id_domain, whose rows are as `Exam.measure` gives them.

    Returns ID and OOD on test images at α = 1, or without an α, by the columns `by`: means and intervals over seeds.
    """
    rows = run_missing(keys, run, path)
    shown = (rows["id_domain"] == keys[0]["id_domain"]) & (rows["split"] == "test") & ~(rows["alpha"] < 1)
    return mean_and_interval(summarize(rows[shown], [*by, "seed"], metric), by)


@dataclass(frozen=True, eq=False)
class Exam:
    """What tuned models are measured on, test images of every domain and ID validation images, beside zero-shot."""

    backbone: Backbone
    task: Task

    @classmethod
    def prepare(cls, backbone: Backbone, images: ImageSet | Task) -> "Exam":
        task = as_task(images)
        split, is_id = task.images.table["split"], task.images.table["domain"] == task.images.id_domain
        asked = (split == "test") | ((split == "validation") & is_id)
        return cls(backbone, task.on(task.images.take(np.flatnonzero(asked))))

    @cached_property
    def zero_shot(self) -> Tensor:
        """Similarities at α = 0 [N, T]."""
        return predict(self.backbone, self.task)

    def measure(self, tuned: Tuned, alphas: Iterable[float], **about: object) -> pd.DataFrame:
        """A row for each α, split and domain; one α, NaN, for a method without.

        It has `about`; alpha, split, domain, is_id, the task's metric, images, forgotten, for curves the columns of
        `unlabelled_statistics`, trained_parameters and seconds of training.
        """
        if tuned.has_alpha:
            found = along(self.backbone, tuned, self.task, alphas, self.zero_shot)
            parts = [self._rows(similarities, alpha) for alpha, similarities, _ in found]
        else:
            parts = [self._rows(tuned.similarities(self.backbone, self.task), np.nan)]
        costs = {"trained_parameters": tuned.trained_parameters, "seconds": seconds(tuned)}
        return pd.concat(parts, ignore_index=True).assign(**about, **costs)

    def _rows(self, similarities: Tensor, alpha: float) -> pd.DataFrame:
        parts = []
        for split, rows in self.task.images.table.groupby("split").indices.items():
            task = self.task.on(self.task.images.take(rows))
            now, before = similarities[rows], self.zero_shot[rows]
            table = task.score(now, before)
            if not np.isnan(alpha):  # points may answer in logits of any scale, and have no α to choose
                told = unlabelled_statistics(now, task.images, before, self.backbone.temperature)
                table = table.merge(told, on="domain")
            parts.append(table.assign(alpha=alpha, split=split))
        return pd.concat(parts, ignore_index=True)


def seconds(tuned: Tuned) -> float:
    """How long training took; 0 for a method without steps."""
    return round(float(tuned.history["seconds"].iloc[-1]), 1) if len(tuned.history) else 0.0
