"""What a task is: how its batches are made, which texts stand against its images, and how a model is scored.

Training takes its batches; sweeps, curves, sliders and benches take its images, its texts and its score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.processes import own_rows
from radapter_lite.training import TrainingConfig, augment


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step of training sees.

    Attributes:
        images: augmented [B, 3, H, W]; of several processes each has its `own_rows` of them, and all of what follows.
        labels: for each image, which of the task's texts stands beside it [B]; on the CPU, where texts are chosen.
        positives: True at (i, j) where image i and the text of image j match [B, B].
    """

    images: Tensor
    labels: Tensor
    positives: Tensor


@runtime_checkable
class Task(Protocol):
    """A task over some images.

    Attributes:
        images: to be trained on or scored on.
        names: what the texts are called on figures and sliders [T].
        metric: the column of `score` that tables and curves show, in percent.
    """

    @property
    def images(self) -> ImageSet: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def metric(self) -> str: ...

    def on(self, images: ImageSet) -> Task:
        """The same task on other images."""

    def texts(self, backbone: Backbone) -> list[list[str]]:
        """The wordings of each text [T][wordings]; its vector is their mean, and training draws one of them."""

    def batches(self, backbone: Backbone, config: TrainingConfig) -> Iterable[Batch]:
        """What `training.train` goes through, anew each epoch."""

    def score(self, similarities: Tensor, zero_shot: Tensor | None = None) -> pd.DataFrame:
        """How good similarities of images with texts [N, T] are: a row a domain, ID first.

        Returns:
            domain, is_id, the metric and images; with zero-shot's similarities [N, T] also forgotten, the share in
            percent of what zero-shot gets right that these get wrong.
        """

    def right(self, answers: Tensor) -> Tensor:
        """Whether texts, by number, are right answers for the images: [..., N] -> bool [..., N]."""


@dataclass(frozen=True, eq=False)
class ImageBatches:
    """Augmented batches of some images, in an order drawn anew each time they are gone through.

    Attributes:
        matches: the texts of each image, by number [N] or [N, M], short rows end in -1; a batch draws one of several.
    """

    backbone: Backbone
    images: ImageSet
    matches: Tensor
    config: TrainingConfig

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.config.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        device, matches = self.backbone.device, self.matches.view(len(self.images), -1)
        counts = (matches >= 0).sum(1)
        order = torch.randperm(len(self.images)).split(self.config.batch_size)
        read = [rows[own_rows(len(rows))] for rows in order]  # by this process
        for rows, pixels in zip(order, self.images.tensors(self.backbone.preprocess, read), strict=True):
            augmented = augment(pixels.to(device), self.config.crop, self.config.flip, len(rows))
            own = matches[rows]  # (B, M)
            place = (torch.rand(len(own)) * counts[rows]).long() if own.shape[1] > 1 else torch.zeros(len(own)).long()
            labels = own.gather(1, place[:, None])[:, 0]
            yield Batch(augmented, labels, (own[:, :, None] == labels).any(1).to(device))
