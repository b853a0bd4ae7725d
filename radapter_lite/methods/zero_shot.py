"""The zero-shot model as one of the methods: nothing is trained."""

import os
from dataclasses import dataclass

from torch import Tensor

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.evaluation import encode_images, text_head
from radapter_lite.methods.classification import no_steps
from radapter_lite.training import TunedPoint


@dataclass(frozen=True)
class ZeroShotConfig:
    """Zero-shot classification's only setting.

    Attributes:
        prompts: what class names are put into, as ("a photo of a {}.",); None for the backbone's own prompts,
            whose mean is a class's vector.
    """

    prompts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        odd = [prompt for prompt in self.prompts or () if "{}" not in prompt]
        if odd or self.prompts == ():
            raise ValueError(
                f"prompts must be texts with {{}} where the class name goes, not {odd or self.prompts}"
            )


def zero_shot(
    backbone: Backbone,
    images: ImageSet,
    config: ZeroShotConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedPoint:
    """The untuned model; its similarities are cosines [N, C]. Images and checkpoint are not used."""

    def similarities(images: ImageSet) -> Tensor:
        return encode_images(backbone, images) @ text_head(backbone, images.classes, config.prompts).T

    return TunedPoint("zero-shot", similarities, no_steps(), 0)
