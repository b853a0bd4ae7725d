"""Houlsby's adapter: a bottleneck with a non-linearity behind every attention and every MLP of both encoders.

It stands where R-Adapter's linear map stands, and cannot be merged into the weights. Source: Houlsby et al. 2019
(arXiv 1902.00751).
"""

import os
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, Change, find_sites
from radapter_lite.data import ImageSet
from radapter_lite.methods.bottleneck import Bottleneck, check_bottleneck, tune_bottlenecks
from radapter_lite.training import TrainingConfig, TunedPoint


@dataclass(frozen=True)
class HoulsbyConfig:
    """The Houlsby adapter's settings.

    Attributes:
        training: of the loop.
        bottleneck: width between the two layers.
        towers: which encoders are adapted.
        temperature: of the contrastive loss, which is FLYP's.
    """

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=30, batch_size=64, lr=3e-3, warmup_steps=20)
    )
    bottleneck: int = 16
    towers: tuple[str, ...] = TOWERS
    temperature: float = 0.01

    def __post_init__(self) -> None:
        check_bottleneck(self.bottleneck)


def houlsby(
    backbone: Backbone,
    images: ImageSet,
    config: HoulsbyConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedPoint:
    """Train h(X) = X + GELU(X W_down + b_down) W_up + b_up behind every attention and MLP; W_up starts at zero.

    X is the sublayer's output before the residual sum. The backbone stays as it is; the point attaches the
    adapters to it for the length of a call. Raises what `find_sites` and `train` raise.
    """
    sites = find_sites(backbone.model, config.towers)
    with torch.random.fork_rng(devices=[]):  # W_down begins at random
        torch.manual_seed(config.training.seed)
        adapters = nn.ModuleList(
            Bottleneck(backbone.model.get_parameter(f"{site.linear}.weight"), config.bottleneck, F.gelu)
            for site in sites
        )
    changes = {site.hooked: _behind(adapter) for site, adapter in zip(sites, adapters, strict=True)}
    return tune_bottlenecks("Houlsby", backbone, images, config, adapters, changes, checkpoint)


def _behind(adapter: nn.Module) -> Change:
    def change(inputs: Tensor, output: Tensor) -> Tensor:
        return output + adapter(output)

    return change
