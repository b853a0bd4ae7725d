"""How sure a model is and how often it is right, and which classes tuning wins and loses. Source: Guo et al. 2017."""

import numpy as np
import pandas as pd
from torch import Tensor

from radapter_lite.tasks import Task


def answers(similarities: Tensor, zero_shot: Tensor, task: Task, temperature: float) -> pd.DataFrame:
    """The answer to each image, a row each: domain, class, is_id, right, before (zero-shot is right), confidence (%).

    Similarities [N, T] are divided by `temperature`, the backbone's own, to become logits.
    """
    images, (best, places) = task.images, (similarities.cpu().float() / temperature).softmax(1).max(1)
    table = images.table[["domain", "class"]].assign(is_id=images.table["domain"] == images.id_domain)
    right, before = task.right(places).numpy(), task.right(zero_shot.argmax(1)).numpy()
    return table.assign(right=right, before=before, confidence=100 * best.numpy())


def reliability(answers: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean confidence and accuracy (percent) in each tenth of confidence: `by`, bin, confidence, accuracy, images."""
    bins = np.searchsorted(np.linspace(10, 90, 9), answers["confidence"])
    groups = answers.assign(bin=bins, accuracy=100.0 * answers["right"]).groupby([*by, "bin"])
    return groups[["confidence", "accuracy"]].mean().assign(images=groups.size()).reset_index()


def calibration(answers: pd.DataFrame) -> pd.DataFrame:
    """Expected calibration error, the mean distance of confidence from accuracy (%): alpha, domain, is_id, error."""
    by = ["alpha", "domain", "is_id"]
    gaps = reliability(answers, by).eval("error = images * abs(confidence - accuracy)").groupby(by)[["error", "images"]]
    return gaps.sum().eval("error / images").rename("error").reset_index()


def class_changes(answers: pd.DataFrame) -> pd.DataFrame:
    """What each class wins and loses from zero-shot to the largest α, in percent of its images, the most won first.

    Columns class, is_id, images, won (the tuned model alone is right), lost (zero-shot alone is), change (won - lost).
    """
    last = answers[answers["alpha"] == answers["alpha"].max()]
    gain = last["right"].astype(int) - last["before"].astype(int)
    groups = last.assign(won=100 * (gain > 0), lost=100 * (gain < 0), change=100 * gain).groupby(["class", "is_id"])
    table = groups[["won", "lost", "change"]].mean().assign(images=groups.size()).reset_index()
    return table.sort_values(["is_id", "change"], ascending=False, ignore_index=True)
