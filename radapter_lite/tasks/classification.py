"""Classification: every image belongs to a class, and the classes' names are the texts."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.tasks.task import Batch, ImageBatches
from radapter_lite.training import TrainingConfig


@dataclass(frozen=True, eq=False)
class Classification:
    """Images and their classes; a class's text is its name in the backbone's prompts, its score top-1 accuracy."""

    images: ImageSet
    metric = "accuracy"

    @property
    def names(self) -> list[str]:
        return self.images.classes

    def on(self, images: ImageSet) -> "Classification":
        return Classification(images)

    def texts(self, backbone: Backbone) -> list[list[str]]:
        """Each class's name in every prompt [C][prompts]."""
        return backbone.describe(self.images.classes)

    def batches(self, backbone: Backbone, config: TrainingConfig) -> Iterable[Batch]:
        return ImageBatches(backbone, self.images, self.images.labels, config)

    def score(self, similarities: Tensor, zero_shot: Tensor | None = None) -> pd.DataFrame:
        """Accuracy, and of zero-shot's what is forgotten; see `accuracy_by_domain` and `forgotten_by_domain`."""
        table = accuracy_by_domain(similarities, self.images)
        if zero_shot is not None:
            table["forgotten"] = table["domain"].map(forgotten_by_domain(similarities, zero_shot, self.images))
        return table

    def right(self, answers: Tensor) -> Tensor:
        """Whether classes are those of the images: [..., N] -> bool [..., N]."""
        return answers.cpu() == self.images.labels


def accuracy_by_domain(similarities: Tensor, images: ImageSet) -> pd.DataFrame:
    """Top-1 accuracy in percent of similarities [N, C], a row a domain, ID first: domain, is_id, accuracy, images."""
    correct = (similarities.argmax(1).cpu() == images.labels).numpy()
    place, domains = pd.factorize(images.table["domain"])
    count = np.bincount(place)
    accuracy = 100 * (np.bincount(place, correct) / count)
    table = pd.DataFrame({"is_id": domains == images.id_domain, "accuracy": accuracy, "images": count}, domains)
    return table.loc[images.domains].rename_axis("domain").reset_index()


def report(similarities: Tensor, images: ImageSet, temperature: float, zero_shot: Tensor | None = None) -> pd.DataFrame:
    """The table of `Classification.score` with precision, recall, f1 and auc in percent, as scikit-learn has them.

    They are macro means over the classes that a domain has; auc, under the ROC curve, is 50 by chance.
    """
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    labels, answers = images.labels.numpy(), similarities.argmax(1).cpu().numpy()
    probabilities = (similarities.float().cpu() / temperature).softmax(1).numpy()
    rows = []
    for domain, own in images.table.groupby("domain").indices.items():
        there = np.unique(labels[own])
        how = {"labels": there, "average": "macro", "zero_division": 0}
        means = precision_recall_fscore_support(labels[own], answers[own], **how)
        one_hot = labels[own, None] == there
        area = roc_auc_score(one_hot, probabilities[np.ix_(own, there)]) if len(there) > 1 else np.nan
        rows.append([domain, *(100 * value for value in (*means[:3], area))])
    table = pd.DataFrame(rows, columns=["domain", "precision", "recall", "f1", "auc"])
    return Classification(images).score(similarities, zero_shot).merge(table, on="domain")


def forgotten_by_domain(similarities: Tensor, zero_shot: Tensor, images: ImageSet) -> pd.Series:
    """By domain, the share in percent of what `zero_shot` [N, C] gets right, if any, that `similarities` do not."""
    right, right_before = (answers.argmax(1).cpu() == images.labels for answers in (similarities, zero_shot))
    pairs = pd.DataFrame({"domain": images.table["domain"].to_numpy(), "lost": (~right).numpy() * 100.0})
    return pairs[right_before.numpy()].groupby("domain")["lost"].mean()
