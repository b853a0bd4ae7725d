"""What every bench measures of a tuned model: its answers on all test images and on ID validation images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from radapter_lite.alpha_choice import unlabelled_statistics
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.evaluation import accuracy_by_domain, forgotten_by_domain, predict
from radapter_lite.training import Tuned, TunedPoint


@dataclass(frozen=True, eq=False)
class Exam:
    """The images that tuned models are measured on, and zero-shot's answers, with which they are compared.

    Attributes:
        images: test images of every domain and ID validation images.
        zero_shot: similarities at α = 0 [N, C].
    """

    backbone: Backbone
    images: ImageSet
    zero_shot: Tensor

    @classmethod
    def prepare(cls, backbone: Backbone, images: ImageSet) -> "Exam":
        table = images.table
        asked = (table["split"] == "test") | (
            (table["split"] == "validation") & (table["domain"] == images.id_domain)
        )
        asked_images = images.take(np.flatnonzero(asked))
        return cls(backbone, asked_images, predict(backbone, asked_images))

    def measure(self, tuned: Tuned | TunedPoint, alphas: Iterable[float], **about: object) -> pd.DataFrame:
        """A row for each α, split and domain; one α, NaN, for a method without.

        Returns:
            `about`; alpha, split, domain, is_id, accuracy, images, forgotten, for curves the columns of
            `unlabelled_statistics`, trained_parameters and seconds of training.
        """
        parts = []
        if isinstance(tuned, TunedPoint):
            parts.append(self._rows(tuned.similarities(self.images), np.nan))
        else:
            with tuned.delta.applied(self.backbone.model, 0.0):
                for alpha in alphas:
                    similarities = self.zero_shot
                    if alpha != 0:
                        tuned.delta.apply(self.backbone.model, alpha)
                        similarities = predict(self.backbone, self.images)
                    parts.append(self._rows(similarities, alpha))
        costs = {"trained_parameters": tuned.trained_parameters, "seconds": seconds(tuned)}
        return pd.concat(parts, ignore_index=True).assign(**about, **costs)

    def _rows(self, similarities: Tensor, alpha: float) -> pd.DataFrame:
        parts = []
        for split in ("test", "validation"):
            rows = np.flatnonzero(self.images.table["split"] == split)
            if not len(rows):
                continue
            images, now, before = self.images.take(rows), similarities[rows], self.zero_shot[rows]
            table = accuracy_by_domain(now, images)
            table["forgotten"] = table["domain"].map(forgotten_by_domain(now, before, images))
            if not np.isnan(alpha):  # points may answer in logits of any scale, and have no α to choose
                told = unlabelled_statistics(now, images, before, self.backbone.temperature)
                table = table.merge(told, on="domain")
            parts.append(table.assign(alpha=alpha, split=split))
        return pd.concat(parts, ignore_index=True)


def seconds(tuned: Tuned | TunedPoint) -> float:
    """How long training took; 0 for a method without steps."""
    return round(float(tuned.history["seconds"].iloc[-1]), 1) if len(tuned.history) else 0.0
