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
        """The classes."""
        return self.images.classes

    def on(self, images: ImageSet) -> "Classification":
        """Classification of other images."""
        return Classification(images)

    def texts(self, backbone: Backbone) -> list[list[str]]:
        """Each class's name in every prompt [C][prompts]."""
        return backbone.describe(self.images.classes)

    def batches(self, backbone: Backbone, config: TrainingConfig) -> Iterable[Batch]:
        """Augmented images and their classes."""
        return ImageBatches(backbone, self.images, self.images.labels, config)

    def score(self, similarities: Tensor, zero_shot: Tensor | None = None) -> pd.DataFrame:
        """Accuracy, and of zero-shot's what is forgotten; see `accuracy_by_domain` and `forgotten_by_domain`."""
        table = accuracy_by_domain(similarities, self.images)
        if zero_shot is not None:
            lost = forgotten_by_domain(similarities, zero_shot, self.images)
            table["forgotten"] = table["domain"].map(lost)
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
    is_id = domains == images.id_domain
    table = pd.DataFrame({"domain": domains, "is_id": is_id, "accuracy": accuracy, "images": count})
    return table.sort_values("is_id", ascending=False, ignore_index=True, kind="stable")


def forgotten_by_domain(similarities: Tensor, zero_shot: Tensor, images: ImageSet) -> pd.Series:
    """The share, in percent, of the images that `zero_shot` [N, C] gets right and `similarities` [N, C] do not.

    By domain; a domain that zero-shot gets wrong throughout is missing.
    """
    right, right_before = (answers.argmax(1).cpu() == images.labels for answers in (similarities, zero_shot))
    pairs = pd.DataFrame({"domain": images.table["domain"].to_numpy(), "lost": (~right).numpy() * 100.0})
    return pairs[right_before.numpy()].groupby("domain")["lost"].mean()
