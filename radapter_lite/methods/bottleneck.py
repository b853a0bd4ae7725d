"""Bottleneck adapters, what Houlsby's adapter and AdaptFormer share: two layers with a non-linearity between.

Because of it they cannot be merged into CLIP's weights: there is no delta and no α, only the tuned model.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Protocol

import torch
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import Change, change_output
from radapter_lite.data import ImageSet
from radapter_lite.delta import hooked_models, require_untouched
from radapter_lite.evaluation import predict
from radapter_lite.methods.pairs import contrastive_loss
from radapter_lite.methods.unchanged import frozen
from radapter_lite.training import TrainingConfig, TunedPoint, train


class Bottleneck(nn.Module):
    """f(X W_down + b_down) W_up + b_up, zero at the start because W_up and both biases are.

    Args:
        like: a weight [d, d_in] of the layer it stands beside; it has that layer's width d, type and device.
        size: of the bottleneck.
        activation: f.
    """

    def __init__(self, like: Tensor, size: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.down = nn.Linear(len(like), size)
        self.up = nn.Linear(size, len(like))
        self.activation = activation
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
        self.to(like)

    def forward(self, x: Tensor) -> Tensor:
        """X [..., d] -> [..., d]."""
        return self.up(self.activation(self.down(x)))


class BottleneckConfig(Protocol):
    """What the settings of such a method have in common; they are dataclasses."""

    @property
    def training(self) -> TrainingConfig: ...
    @property
    def temperature(self) -> float: ...


def check_bottleneck(size: int) -> None:
    """Refuse a bottleneck that is no whole number of 1 or more."""
    if type(size) is not int or size < 1:
        raise ValueError(f"bottleneck must be an integer of 1 or more, not {size}")


@contextmanager
def attached(model: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    """Change the outputs of modules, by dotted name, for the length of a with block; the model is frozen in it.

    Raises:
        ValueError: for a model that carries adapters already or has a delta applied to it.
    """
    require_untouched(model)
    handles = [
        model.get_submodule(name).register_forward_hook(change_output(change))
        for name, change in changes.items()
    ]
    hooked_models.add(model)
    try:
        with frozen(model):
            yield
    finally:
        hooked_models.discard(model)
        for handle in handles:
            handle.remove()


def tune_bottlenecks(
    method: str,
    backbone: Backbone,
    images: ImageSet,
    config: BottleneckConfig,
    adapters: nn.ModuleList,
    changes: Mapping[str, Change],
    checkpoint: str | os.PathLike[str] | None,
) -> TunedPoint:
    """Train the adapters, attached by `changes`, with FLYP's loss; the point attaches them when it is asked."""
    with attached(backbone.model, changes):
        history = train(
            backbone,
            images,
            contrastive_loss(backbone, images.classes, config.temperature),
            adapters.parameters(),
            config.training,
            state={"adapters": adapters},
            settings=asdict(config),  # type: ignore[call-overload]
            checkpoint=checkpoint,
            description=method,
        )

    @torch.no_grad()
    def similarities(images: ImageSet) -> Tensor:
        with attached(backbone.model, changes):
            return predict(backbone, images)

    return TunedPoint(method, similarities, history, sum(p.numel() for p in adapters.parameters()))
