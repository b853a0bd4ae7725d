"""What images without labels can do for any method, self-training and continued pretraining, and ensembles.

    self_train(clip, few, more)                   two teachers label more images, a student learns from both sets
    adapted = pretrain(clip, more, loop)          TAPT on the task's own images, DAPT on all images of its domain;
    since(clip, adapted, tune(adapted, few))      then it is tuned: both together are one delta from zero-shot

Source: Xie et al. 2020 (self-training), Gururangan et al. 2020 (DAPT, TAPT), Chen et al. 2020 (SimCLR's loss).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta, require_untouched
from radapter_lite.losses import info_nce
from radapter_lite.methods.objectives import encode_batch
from radapter_lite.methods.registry import tune
from radapter_lite.tasks import Batch, Classification, Task, as_task
from radapter_lite.tasks.task import ImageBatches
from radapter_lite.training import TrainingConfig, augment, count_steps, train
from radapter_lite.tuned import Tuned


def ensemble(backbone: Backbone, members: Sequence[Tuned], images: ImageSet | Task, alpha: float = 1.0) -> Tensor:
    """What models that answer in cosines say together of a task, at one α [N, T]; see `averaged`."""
    return averaged([member.similarities(backbone, images, alpha) for member in members], backbone.temperature)


def averaged(similarities: Sequence[Tensor], temperature: float) -> Tensor:
    """The mean p of several models' probabilities, as the similarities τ log p that give it [N, T].

    Those of one model are its own, but for a number added to each row.
    """
    logits = torch.stack([(each.float() / temperature).log_softmax(1) for each in similarities])
    return temperature * (logits.logsumexp(0) - math.log(len(similarities)))


def pseudo_labels(
    backbone: Backbone, teachers: Sequence[Tuned], few: ImageSet, unlabelled: ImageSet, threshold: float
) -> ImageSet:
    """The images, few not among them, that all teachers put into one class with a mean probability of `threshold`.

    The class is what they say; the images' own is never read.
    """
    table = unlabelled.table[~unlabelled.table["file"].isin(few.table["file"])].assign(**{"class": few.classes[0]})
    task = Classification(replace(few, table=table))
    said = [teacher.similarities(backbone, task) for teacher in teachers]
    sure, label = (averaged(said, backbone.temperature) / backbone.temperature).exp().max(1)
    agreed = torch.stack([each.argmax(1) == label for each in said]).all(0)
    kept = torch.nonzero(agreed & (sure >= threshold))[:, 0].tolist()
    told = table.iloc[kept].assign(**{"class": [few.classes[label[row]] for row in kept]})
    return replace(few, table=told.reset_index(drop=True))


def study(backbone: Backbone, few: ImageSet, told: ImageSet, method: str, config: Any) -> Tuned:
    """A student, tuned on the few images and on those that it was told of, in as many steps as on the few alone."""
    steps = count_steps(as_task(few).batches(backbone, config.training), config.training)
    both = replace(few, table=pd.concat([few.table, told.table], ignore_index=True))
    return tune(backbone, both, method, config, steps=steps)


def self_train(
    backbone: Backbone,
    few: ImageSet,
    unlabelled: ImageSet,
    method: str = "R-Adapter",
    threshold: float = 0.8,
    **settings: Any,
) -> Tuned:
    """Tune two teachers of different seeds on the few images, and a student on what they agree on beside them.

    `settings` are the method's, of all three; `unlabelled` are images of the same kind, whose labels are not read.
    """
    first = tune(backbone, few, method, **settings)
    second = tune(backbone, few, method, first.config, seed=first.config.training.seed + 1)
    told = pseudo_labels(backbone, [first, second], few, unlabelled, threshold)
    return study(backbone, few, told, method, first.config)


def pretrain(backbone: Backbone, images: ImageSet, config: TrainingConfig) -> Backbone:
    """A copy whose image encoder has learned that two crops of one image belong together, and those of others do not.

    By InfoNCE at the model's own temperature. Labels are not read, and the text encoder stays as it is.
    """
    require_untouched(backbone.model)
    adapted = replace(backbone, model=copy.deepcopy(backbone.model))
    visual, scale = adapted.model.get_submodule("visual"), 1 / backbone.temperature
    whole = ImageBatches(adapted, images, torch.arange(len(images)), replace(config, crop=1.0, flip=False))

    def loss(batch: Batch) -> Tensor:
        crops = (augment(batch.images, config.crop, config.flip, len(batch.labels)) for _ in range(2))
        first, second = (encode_batch(adapted, replace(batch, images=each)) for each in crops)
        return info_nce(first, second, scale)

    train(whole, loss, visual.parameters(), config, state={"visual": visual}, about={"method": "pretraining"})
    return adapted


def since(backbone: Backbone, adapted: Backbone, tuned: Tuned) -> Tuned:
    """What was tuned on an adapted copy, as one delta from the backbone: α = 0 is its zero-shot model, bit for bit."""
    about = {"backbone": backbone, "method": tuned.method, "settings": tuned.meta["settings"]}
    with tuned.delta.applied(adapted.model, 1.0):
        return replace(tuned, learned=Delta.from_difference(backbone.model.state_dict(), adapted.model, **about))
