"""A delta's whole way from α = 0 to 1 from a few exact points, for any α of the two encoders.

Features are smooth in α. They are computed once at a few Chebyshev nodes, 0 and 1 among them, and interpolated in
between, in milliseconds where putting the delta into the model and encoding takes seconds.

Source: Berrut and Trefethen 2004 (barycentric Lagrange interpolation).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from radapter_lite.alpha import checked, keys_of
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.encoding import image_encoder, predict, text_features
from radapter_lite.progress import progress
from radapter_lite.statistics import summarize
from radapter_lite.tasks import Task, as_task

NODES = 17  # with 9, one PictoShift image in 200 still got another class than from the model itself


def chebyshev_nodes(count: int) -> np.ndarray:
    """The Chebyshev-Lobatto nodes in [0, 1], both ends among them [count]. Raises ValueError for fewer than 2."""
    if count < 2:
        raise ValueError(f"interpolation along α needs 2 nodes or more, not {count}")
    return 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / (count - 1))


def weights_at(nodes: np.ndarray, alpha: float) -> np.ndarray:
    """What each Chebyshev-Lobatto node counts at α [n], in sum 1. Raises ValueError for an α outside [0, 1]."""
    from scipy.interpolate import BarycentricInterpolator

    return BarycentricInterpolator(nodes, np.eye(len(nodes)), rng=0)(checked(alpha))


@dataclass(frozen=True, eq=False)
class FeatureCurve:
    """Unit features of some images, or of some classes, along one encoder's α."""

    nodes: np.ndarray  # the values of α at which they were computed [n]
    values: Tensor  # unit features there [n, R, D], float32

    @classmethod
    def of_images(
        cls, backbone: Backbone, delta: Delta, images: ImageSet | Tensor, nodes: int = NODES
    ) -> "FeatureCurve":
        """The curve of images, which may be pixels that were preprocessed already [N, 3, H, W]."""
        if isinstance(images, Tensor):
            return _measure(backbone, delta, nodes, partial(backbone.encode_images, images))[0]
        return _measure(backbone, delta, nodes, image_encoder(backbone, images, delta))[0]

    @classmethod
    def of_texts(cls, backbone: Backbone, delta: Delta, texts: list[list[str]], nodes: int = NODES) -> "FeatureCurve":
        """The curve of texts, each of which is the mean of its wordings [T][wordings]."""
        return _measure(backbone, delta, nodes, partial(text_features, backbone, texts))[0]

    def at(self, alpha: float) -> Tensor:
        """Unit features at α [R, D]; exact at a node, 0 and 1 among them."""
        weights = torch.from_numpy(weights_at(self.nodes, alpha)).to(self.values)
        if weights.max() == 1:
            return self.values[int(weights.argmax())]
        return F.normalize(torch.tensordot(weights, self.values, 1), dim=-1)


def _measure(backbone: Backbone, delta: Delta, nodes: int, *encoders: Callable[[], Tensor]) -> list[FeatureCurve]:
    """The curve of what each encoder gives, from one pass over the nodes; the model is left as it was."""
    places, found = chebyshev_nodes(nodes), []
    with torch.no_grad(), delta.applied(backbone.model, 0.0):
        for alpha in progress(places, "nodes along alpha"):
            delta.apply(backbone.model, float(alpha))
            found.append([encode().float().cpu() for encode in encoders])
    return [FeatureCurve(places, torch.stack(each)) for each in zip(*found, strict=True)]


@dataclass(frozen=True, eq=False)
class AlphaCurve:
    """Similarities of a task's images with its texts along α, of both encoders together or of each.

    Images depend on the image encoder's α alone and texts on the text encoder's, so the nodes serve every pair of them.
    """

    image: FeatureCurve
    text: FeatureCurve
    temperature: float  # the backbone's, which the similarities are divided by to become logits

    @classmethod
    def measure(cls, backbone: Backbone, delta: Delta, images: ImageSet | Task, nodes: int = NODES) -> "AlphaCurve":
        """Encode a task's images and texts at each node, in at most `nodes` times the time of `encoding.predict`."""
        image, text = _measure(backbone, delta, nodes, *encoders_of(backbone, as_task(images), delta).values())
        return cls(image, text, backbone.temperature)

    def thinned(self, step: int) -> "AlphaCurve":
        """The curve through every `step`-th node: 2 leaves 9 of 17. Raises ValueError if the last is left out."""
        count = len(self.image.nodes)
        if step < 1 or (count - 1) % step:
            raise ValueError(f"every {step}th of {count} nodes leaves out the last: step must divide {count - 1}")
        image, text = (FeatureCurve(each.nodes[::step], each.values[::step]) for each in (self.image, self.text))
        return replace(self, image=image, text=text)

    @property
    def nbytes(self) -> int:
        """Memory that the nodes take: 4 n (N + C) D bytes."""
        return self.image.values.nbytes + self.text.values.nbytes

    def at(self, alpha: float, text_alpha: float | None = None) -> Tensor:
        """Cosine similarities [N, C] at α, or at one α for each encoder. Raises ValueError for an α outside [0, 1]."""
        return self.image.at(alpha) @ self.text.at(alpha if text_alpha is None else text_alpha).T

    def probabilities(self, alpha: float) -> Tensor:
        """The softmax of the logits at α [N, C]."""
        return (self.at(alpha) / self.temperature).softmax(1)

    def sweep(self, images: ImageSet | Task, alphas: Iterable[float]) -> pd.DataFrame:
        """The score along α: alpha, domain, is_id, accuracy, images; as `evaluation.sweep`, without the model."""
        task = as_task(images)
        scores = {alpha: task.score(self.at(alpha)) for alpha in alphas}
        return pd.concat(scores, names=["alpha"]).reset_index("alpha").reset_index(drop=True)

    def encoder_map(self, images: ImageSet | Task, alphas: Iterable[float]) -> pd.DataFrame:
        """The score for each pair of the encoders' α: image_alpha, text_alpha, id, ood and their mean, `mean`."""
        task, points = as_task(images), list(alphas)
        heads = {alpha: self.text.at(alpha) for alpha in points}
        scores: dict[tuple[float, float], pd.DataFrame] = {}
        for image_alpha in progress(points, "map of the encoders"):
            features = self.image.at(image_alpha)
            scores |= {(image_alpha, alpha): task.score(features @ head.T) for alpha, head in heads.items()}
        pairs = ["image_alpha", "text_alpha"]
        table = summarize(pd.concat(scores, names=pairs).reset_index(pairs), pairs, task.metric)
        return table.assign(mean=(table["id"] + table["ood"]) / 2)


def held_out_error(
    curves: Mapping[str, AlphaCurve], backbone: Backbone, delta: Delta, images: ImageSet | Task, alphas: Iterable[float]
) -> pd.DataFrame:
    """Interpolated beside exact similarities of the same images and delta: a row for each curve and α.

    Columns are curve, its name; alpha; error, the largest difference of a cosine similarity; changed, the share in
    percent of images whose top class is another one.
    """
    rows = []
    with delta.applied(backbone.model, 0.0):
        for alpha in progress(list(alphas), "held-out alpha"):
            delta.apply(backbone.model, alpha)
            exact = predict(backbone, images).float().cpu()
            for name, curve in curves.items():
                found = curve.at(alpha)
                changed = (exact.argmax(1) != found.argmax(1)).float().mean().item()
                error = (exact - found).abs().max().item()
                rows.append({"curve": name, "alpha": alpha, "error": error, "changed": 100 * changed})
    return pd.DataFrame(rows)


def layer_profile(backbone: Backbone, delta: Delta, images: ImageSet | Task) -> pd.DataFrame:
    """The score with the delta in one layer alone, all else at zero-shot: a row a layer.

    Columns are tower ("image", "text"), layer (its number, 0 next to the input, or "stem"), id, ood (percent, ood the
    mean over domains), and id_change and ood_change, the points from zero-shot.
    """
    task = as_task(images)
    encoders = encoders_of(backbone, task, delta)
    layers = [key for key in keys_of(delta.touched(backbone.model.state_dict())) if "." in key]
    rows = []
    with torch.no_grad(), delta.applied(backbone.model, 0.0):
        start = {tower: encode() for tower, encode in encoders.items()}
        for key in progress(["", *layers], "layers"):
            tower, _, layer = key.partition(".")
            now = start
            if key:
                delta.apply(backbone.model, {key: 1.0})
                now = start | {tower: encoders[tower]()}
            table = task.score(now["image"] @ now["text"].T).assign(layer=key)
            means = summarize(table, ["layer"], task.metric).iloc[0][["id", "ood"]]
            rows.append({"tower": tower, "layer": int(layer) if layer.isdigit() else layer, **means})
    profile = pd.DataFrame(rows[1:]).astype({"id": float, "ood": float})
    return profile.assign(id_change=profile["id"] - rows[0]["id"], ood_change=profile["ood"] - rows[0]["ood"])


def encoders_of(backbone: Backbone, task: Task, delta: Delta) -> dict[str, Callable[[], Tensor]]:
    """What encodes a task's images and its texts with the model as it then stands, at any α of the delta."""
    images, texts = image_encoder(backbone, task.images, delta), task.texts(backbone)
    return {"image": images, "text": partial(text_features, backbone, texts)}
