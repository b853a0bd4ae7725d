"""How good a model is, and how good it is along α, as tidy tables."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from radapter_lite.alpha import Alpha, keys_of
from radapter_lite.alpha_curve import encoders_of
from radapter_lite.backbone import Backbone
from radapter_lite.calibration import answers
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.encoding import image_features, predict, readable, text_features
from radapter_lite.progress import progress
from radapter_lite.tasks import Retrieval, Segmentation, Task
from radapter_lite.tuned import Tuned

ALPHAS = tuple(number / 10 for number in range(11))


def evaluate(backbone: Backbone, images: ImageSet | Task) -> pd.DataFrame:
    """The score of the model as it stands, in percent, a row a domain: domain, is_id, the task's metric, images."""
    task = readable(backbone, images)
    if isinstance(task, Retrieval):  # there may be more captions and images than their similarities fit into memory
        return task.recall(image_features(backbone, task.images), text_features(backbone, task.texts(backbone)))
    return task.score(predict(backbone, task))


def sweep(
    backbone: Backbone, tuned: Tuned | Delta, images: ImageSet | Task, alphas: Iterable[Alpha] | None = None
) -> pd.DataFrame:
    """The score along α, a row for each α and domain: alpha, domain, is_id, accuracy, images, forgotten.

    `forgotten` is the share, in percent, of what zero-shot gets right and this α gets wrong; in place of accuracy
    stands what the task measures. The alphas are eleven from 0 to 1 if left out, and 0 and 1 for a method without an α.
    The backbone keeps its weights. Raises ValueError for an α that the method lacks, or a backbone of other weights.
    """
    return examine(backbone, tuned, images, alphas, by_image=False)[0]


def examine(
    backbone: Backbone,
    tuned: Tuned | Delta,
    images: ImageSet | Task,
    alphas: Iterable[Alpha] | None = None,
    by_image: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of `sweep`, and with it, `by_image`, the `calibration.answers`: a row for each α and image."""
    task, temperature = readable(backbone, images), backbone.temperature
    has_alpha = isinstance(tuned, Delta) or tuned.has_alpha
    points: list[Alpha] = list(alphas) if alphas is not None else list(ALPHAS if has_alpha else (0.0, 1.0))
    parts = []
    for alpha, similarities, zero_shot in along(backbone, tuned, task, points):
        told = answers(similarities, zero_shot, task, temperature) if by_image else pd.DataFrame()
        parts.append((task.score(similarities, zero_shot), told))
        for table in parts[-1]:
            table.insert(0, "alpha", [alpha] * len(table))
    scores, rows = zip(*parts, strict=True)
    return pd.concat(scores, ignore_index=True), pd.concat(rows, ignore_index=True)


def along(
    backbone: Backbone, tuned: Tuned | Delta, task: Task, alphas: Iterable[Any], zero_shot: Tensor | None = None
) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Each α with the similarities there [N, T], and zero-shot's beside them, which are computed if not given.

    The weights are checked once, and are afterwards as before. An encoder that the delta does not change encodes once.
    """
    points = list(alphas)
    if isinstance(tuned, Tuned) and not isinstance(tuned.learned, Delta):
        zero_shot = predict(backbone, task) if zero_shot is None else zero_shot
        for alpha in points:
            yield alpha, zero_shot if alpha == 0 else tuned.similarities(backbone, task, alpha), zero_shot
        return
    delta = tuned if isinstance(tuned, Delta) else tuned.delta
    changed, features = keys_of(delta.touched(backbone.model.state_dict())), dict[str, Tensor]()
    encoders = encoders_of(backbone, task, delta)

    def similarities() -> Tensor:
        for tower, encode in encoders.items():
            if tower in changed or tower not in features:
                features[tower] = encode()
        return features["image"] @ features["text"].T

    with delta.applied(backbone.model, 0.0):
        zero_shot = similarities() if zero_shot is None else zero_shot
        for alpha in progress(points, "sweeping alpha"):
            delta.apply(backbone.model, alpha)
            yield alpha, zero_shot if alpha == 0 else similarities(), zero_shot


def segment(
    backbone: Backbone, image: Image.Image, names: Sequence[str], tuned: Tuned | None = None, alpha: Alpha = 1.0
) -> np.ndarray:
    """Which of the names every pixel of an RGB image has, by number, and -1 for the ground: [H, W].

    Without `tuned` zero-shot, else at `alpha`. Raises ValueError for fewer than two names, and as `Tuned.similarities`.
    """
    task = Segmentation.of_picture(image, names, backbone.temperature)
    asked = predict(backbone, task) if tuned is None else tuned.similarities(backbone, task, alpha)
    painted = Image.fromarray(task.paint(asked)[0].astype(np.int32))
    return np.asarray(painted.resize(image.size, Image.Resampling.NEAREST))
