"""Zero-shot heads, accuracies, and the sweep along α, each as a tidy DataFrame."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from radapter_lite.alpha import Alpha
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta

# What stands around a class's name. PictoCLIP learned from pictograms, other CLIPs mostly from photographs.
PICTOGRAM_TEMPLATES = (
    "{}",
    "an icon of a {}",
    "a picture of a {}",
    "a drawing of {}",
    "a symbol of {}",
    "the {} icon",
)
PHOTO_TEMPLATES = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a drawing of a {}.",
    "a close-up photo of a {}.",
    "a rendering of a {}.",
    "an image of a {}.",
)
EVALUATION_BATCH = 256


def templates(backbone: Backbone) -> tuple[str, ...]:
    """The prompts a backbone's classes are put into."""
    return PICTOGRAM_TEMPLATES if backbone.name == "picto" else PHOTO_TEMPLATES


@torch.no_grad()
def text_head(backbone: Backbone, classes: Iterable[str], prompts: tuple[str, ...] | None = None) -> Tensor:
    """One unit vector a class [C, D]: the mean of its prompts' text features; the backbone's own prompts for None."""
    prompts = prompts or templates(backbone)
    names = list(classes)
    tokens = backbone.tokenizer([prompt.format(name) for name in names for prompt in prompts])
    device = next(backbone.model.parameters()).device
    features = torch.cat(
        [
            backbone.model.encode_text(part, normalize=True)  # type: ignore[operator]
            for part in tokens.to(device).split(EVALUATION_BATCH)
        ]
    )
    return F.normalize(features.view(len(names), len(prompts), -1).mean(1), dim=-1)


@torch.no_grad()
def encode_images(backbone: Backbone, images: ImageSet) -> Tensor:
    """Unit image features [N, D]."""
    device = next(backbone.model.parameters()).device
    parts = []
    rows = range(len(images))
    starts = range(0, len(images), EVALUATION_BATCH)
    long = len(images) >= 10_000
    for start in tqdm(starts, desc="encoding", leave=False) if long else starts:
        batch = images.tensor(backbone.preprocess, rows[start : start + EVALUATION_BATCH]).to(device)
        parts.append(backbone.model.encode_image(batch, normalize=True))  # type: ignore[operator]
    return torch.cat(parts)


@torch.no_grad()
def predict(backbone: Backbone, images: ImageSet) -> Tensor:
    """Cosine similarity of every image with every class [N, C]."""
    return encode_images(backbone, images) @ text_head(backbone, images.classes).T


def accuracy_by_domain(similarities: Tensor, images: ImageSet) -> pd.DataFrame:
    """Top-1 accuracy in percent, a row a domain: domain, is_id, accuracy, images."""
    correct = (similarities.argmax(1).cpu() == images.labels).numpy()
    groups = pd.DataFrame({"domain": images.table["domain"], "correct": correct}).groupby(
        "domain", sort=False
    )
    result = groups["correct"].agg(accuracy="mean", images="size").reset_index()
    result["accuracy"] *= 100
    result.insert(1, "is_id", result["domain"] == images.id_domain)
    return result.sort_values("is_id", ascending=False, ignore_index=True)


def forgotten_by_domain(similarities: Tensor, zero_shot: Tensor, images: ImageSet) -> pd.Series:
    """The share, in percent, of the images that `zero_shot` [N, C] gets right and `similarities` [N, C] do not.

    By domain; a domain that zero-shot gets wrong throughout is missing.
    """
    right, right_before = (answers.argmax(1).cpu() == images.labels for answers in (similarities, zero_shot))
    pairs = pd.DataFrame({"domain": images.table["domain"].to_numpy(), "lost": (~right).numpy() * 100.0})
    return pairs[right_before.numpy()].groupby("domain")["lost"].mean()


def evaluate(backbone: Backbone, images: ImageSet) -> pd.DataFrame:
    """Zero-shot top-1 accuracy in percent of the model as it stands, a row a domain."""
    return accuracy_by_domain(predict(backbone, images), images)


@torch.no_grad()
def sweep(
    backbone: Backbone, delta: Delta, images: ImageSet, alphas: Iterable[Alpha] = tuple(np.linspace(0, 1, 11))
) -> pd.DataFrame:
    """Accuracy along α: a row for each α and domain: alpha, domain, is_id, accuracy, images, forgotten.

    `forgotten` is the share, in percent, of the images that zero-shot gets right and this α gets wrong. The
    backbone's weights are afterwards what they were before.
    """
    points = list(alphas)
    rows = []
    with delta.applied(backbone.model, 0.0):
        zero_shot = predict(backbone, images)
        for alpha in tqdm(points, desc="sweeping alpha", leave=False):
            similarities = zero_shot
            if alpha != 0:
                delta.apply(backbone.model, alpha)
                similarities = predict(backbone, images)
            result = accuracy_by_domain(similarities, images)
            result["forgotten"] = result["domain"].map(forgotten_by_domain(similarities, zero_shot, images))
            result.insert(0, "alpha", [alpha] * len(result))
            rows.append(result)
    return pd.concat(rows, ignore_index=True)
