"""What the methods that classify with a head or with prompts share."""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor, autocast
from torch.nn import functional as F

from radapter_lite.data import ImageSet


def cosine_cross_entropy(
    features: Tensor, head: Tensor, labels: Tensor, temperature: float | Tensor
) -> Tensor:
    """Cross-entropy of cosine similarities divided by the temperature, in float32 [scalar].

    Args:
        features: unit image features [B, D].
        head: a unit vector a class [C, D].
        labels: [B].
        temperature: τ, above 0.
    """
    with autocast(features.device.type, enabled=False):  # τ = 0.01 multiplies rounding by 100
        return F.cross_entropy(features.float() @ head.float().T / temperature, labels)


def require_classes(method: str, classes: Sequence[str], images: ImageSet) -> None:
    """Raise ValueError for images of other classes than a head was made for: its columns would mean others."""
    if list(classes) != images.classes:
        raise ValueError(
            f"{method} has a head for its {len(classes)} training classes ({', '.join(classes[:3])}, ...), and "
            f"these images have {len(images.classes)} classes ({', '.join(images.classes[:3])}, ...): "
            f"train it on these classes, or evaluate it on images of the same ones"
        )


def no_steps() -> pd.DataFrame:
    """The history of a method that takes no gradient step: `train`'s columns, no row."""
    return pd.DataFrame({name: [] for name in ("step", "epoch", "loss", "lr", "seconds")})


def check_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that is not above 0."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
