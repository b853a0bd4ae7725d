"""A linear probe: logistic regression on the frozen image encoder's features.

Source: Radford et al. 2021 (CLIP), section 3.2; scikit-learn's LogisticRegression.
"""

import os
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import require_untouched
from radapter_lite.evaluation import encode_images
from radapter_lite.methods.classification import no_steps, require_classes
from radapter_lite.training import TunedPoint


@dataclass(frozen=True)
class LinearProbeConfig:
    """The linear probe's settings.

    Attributes:
        C: inverse of the weight penalty's strength; the loss is C times the cross-entropy summed over images,
            plus half the squared norm of the weights. Unit features want a large one.
        max_iter: the most steps of the solver (L-BFGS).
    """

    C: float = 100.0
    max_iter: int = 2000

    def __post_init__(self) -> None:
        for name in ("C", "max_iter"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


def linear_probe(
    backbone: Backbone,
    images: ImageSet,
    config: LinearProbeConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedPoint:
    """Fit the probe on unit features of un-augmented images; its similarities are logits [N, C].

    A class without training images has the logit -inf, probability zero. It is convex and fast: there is no
    checkpoint to write.

    Raises:
        ValueError: for images of a single class; later, for images whose classes are not the training ones.
    """
    require_untouched(backbone.model)
    features = encode_images(backbone, images)
    weight, bias = fit_head(features, images.labels, len(images.classes), config.C, config.max_iter)
    classes = list(images.classes)

    def similarities(images: ImageSet) -> Tensor:
        require_classes("the linear probe", classes, images)
        return encode_images(backbone, images) @ weight.T + bias

    seen = int(torch.isfinite(bias).sum())
    return TunedPoint("linear probe", similarities, no_steps(), seen * (weight.shape[1] + 1))


def fit_head(
    features: Tensor, labels: Tensor, classes: int, C: float, max_iter: int
) -> tuple[Tensor, Tensor]:
    """Weights [C, D] and biases [C] of the logistic regression; the bias of a class without images is -inf.

    Args:
        features: [N, D].
        labels: [N], below `classes`.

    Raises:
        ValueError: if all images are of one class.
    """
    seen = labels.unique().tolist()
    if len(seen) < 2:
        raise ValueError(
            f"a linear probe needs training images of two classes or more; these {len(labels)} are all of one"
        )
    regression = LogisticRegression(C=C, max_iter=max_iter)
    regression.fit(features.detach().cpu().double().numpy(), labels.cpu().numpy())
    fitted_weight = torch.from_numpy(regression.coef_)
    fitted_bias = torch.from_numpy(regression.intercept_)
    if len(seen) == 2:  # scikit-learn keeps one row for two classes, the second's logit against the first's 0
        fitted_weight = torch.cat([torch.zeros_like(fitted_weight), fitted_weight])
        fitted_bias = torch.cat([torch.zeros_like(fitted_bias), fitted_bias])
    weight = features.new_zeros(classes, features.shape[1])
    bias = features.new_full((classes,), -torch.inf)
    weight[seen], bias[seen] = fitted_weight.to(weight), fitted_bias.to(bias)
    return weight, bias
