"""From images and texts to unit features, and from both to similarities: what a model says of a task."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import first_layer, skipped
from radapter_lite.data import ImageSet
from radapter_lite.data.images import KEPT_IMAGE_BYTES
from radapter_lite.delta import Delta
from radapter_lite.progress import progress
from radapter_lite.tasks import Task, as_task

BATCH = 64  # images or texts encoded at once; on CPUs, 256 leave the caches and take a tenth longer


@torch.no_grad()
def image_features(backbone: Backbone, images: ImageSet) -> Tensor:
    """Unit features of images [N, D]."""
    rows = torch.arange(len(images)).split(BATCH)
    found = images.tensors(backbone.preprocess, rows)
    shown = progress(found, "encoding", total=len(rows), disable=None if len(images) >= 10_000 else True)
    return torch.cat([backbone.encode_images(pixels) for pixels in shown])


def image_encoder(backbone: Backbone, images: ImageSet, delta: Delta) -> Callable[[], Tensor]:
    """`image_features` for calls at several α of a delta: what comes before all that it changes is computed once.

    That is the convolution, patch embedding or stem which images reach first. What it gives is kept, on the CPU, where
    it fits into `KEPT_IMAGE_BYTES`; the features are the same, bit for bit.
    """
    name, first = first_layer(backbone.model)
    changed = [weight for weight in delta.touched(backbone.model.state_dict()) if weight.startswith("visual.")]
    if not changed or any(weight.startswith(f"{name}.") for weight in changed):
        return partial(image_features, backbone, images)
    begun: list[Tensor] = []

    def keep(_: object, pixels: object, output: object) -> None:
        if isinstance(output, Tensor) and output.nbytes / len(output) * len(images) <= KEPT_IMAGE_BYTES:
            begun.append(output.cpu())

    @torch.no_grad()
    def encode() -> Tensor:
        if sum(map(len, begun)) == len(images):
            with skipped(first):
                return torch.cat([backbone.encode_images(output) for output in begun])
        begun.clear()  # of a pass that was interrupted
        hook = first.register_forward_hook(keep)
        try:
            return image_features(backbone, images)
        finally:
            hook.remove()

    return encode


def readable(backbone: Backbone, images: ImageSet | Task) -> Task:
    """The task, or that of a set of images; if broken images are to be skipped, on its `ImageSet.readable`."""
    task = as_task(images)
    return task if task.images.broken == "stop" else task.on(task.images.readable(backbone.preprocess))


@torch.no_grad()
def text_features(backbone: Backbone, texts: Sequence[Sequence[str]]) -> Tensor:
    """One unit vector for each text [T, D]: the mean of the unit features of its wordings [T][wordings]."""
    tokens = backbone.tokenizer([wording for wordings in texts for wording in wordings])
    features = torch.cat([backbone.encode_texts(part) for part in tokens.split(BATCH)])
    counts = torch.tensor([len(wordings) for wordings in texts], device=features.device)
    owner = torch.repeat_interleave(torch.arange(len(texts), device=features.device), counts)
    total = features.new_zeros(len(texts), features.shape[1]).index_add_(0, owner, features)
    return F.normalize(total / counts[:, None], dim=-1)


def text_head(backbone: Backbone, classes: Iterable[str]) -> Tensor:
    """One unit vector for each class [C, D]: the mean of its name in the backbone's prompts."""
    return text_features(backbone, backbone.describe(classes))


def predict(backbone: Backbone, images: ImageSet | Task) -> Tensor:
    """Cosine similarities of a task's images, or of a set's, with its texts [N, T], from the model as it stands."""
    task = as_task(images)
    return image_features(backbone, task.images) @ text_features(backbone, task.texts(backbone)).T
