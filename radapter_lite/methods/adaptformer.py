"""AdaptFormer: a bottleneck beside every MLP of both encoders, on the same input, its output scaled and added.

Source: Chen et al. 2022 (arXiv 2205.13535).
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
class AdaptFormerConfig:
    """AdaptFormer's settings.

    Attributes:
        training: of the loop.
        bottleneck: width between the two layers.
        scale: s, what the branch is multiplied by.
        towers: which encoders are adapted.
        temperature: of the contrastive loss, which is FLYP's.
    """

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=30, batch_size=64, lr=1e-2, warmup_steps=20)
    )
    bottleneck: int = 16
    scale: float = 0.1
    towers: tuple[str, ...] = TOWERS
    temperature: float = 0.01

    def __post_init__(self) -> None:
        check_bottleneck(self.bottleneck)
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0, not {self.scale}")


def adaptformer(
    backbone: Backbone,
    images: ImageSet,
    config: AdaptFormerConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedPoint:
    """Train X' = MLP(LN(X)) + s (ReLU(LN(X) W_down + b_down) W_up + b_up) + X in every layer; W_up starts at zero.

    The backbone stays as it is; the point attaches the branches to it for the length of a call. Raises what
    `find_sites` and `train` raise.
    """
    sites = [site for site in find_sites(backbone.model, config.towers) if site.kind == "mlp"]
    with torch.random.fork_rng(devices=[]):  # W_down begins at random
        torch.manual_seed(config.training.seed)
        adapters = nn.ModuleList(
            Bottleneck(backbone.model.get_parameter(f"{site.linear}.weight"), config.bottleneck, F.relu)
            for site in sites
        )
    changes = {
        site.linear.rpartition(".")[0]: _beside(adapter, config.scale)  # the MLP the linear layer belongs to
        for site, adapter in zip(sites, adapters, strict=True)
    }
    return tune_bottlenecks("AdaptFormer", backbone, images, config, adapters, changes, checkpoint)


def _beside(adapter: nn.Module, scale: float) -> Change:
    def change(inputs: Tensor, output: Tensor) -> Tensor:
        return output + scale * adapter(inputs)

    return change
