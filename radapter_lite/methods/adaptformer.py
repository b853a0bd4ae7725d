"""AdaptFormer: a bottleneck beside every MLP of both encoders, on the same input, its output scaled and added.

Source: Chen et al. 2022 (arXiv 2205.13535).
"""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import Change
from radapter_lite.backbone.sites import TOWERS, find_sites
from radapter_lite.methods.bottleneck import answer_with, make_bottlenecks, tune_bottlenecks
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LOOP, register
from radapter_lite.methods.trainer import Train
from radapter_lite.settings import check_above_zero, check_whole
from radapter_lite.tasks import Task
from radapter_lite.training import TrainingConfig
from radapter_lite.tuned import Tuned


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
        check_whole(self, 1, "bottleneck")
        check_above_zero(self, "scale", "temperature")


def _adapters(backbone: Backbone, config: AdaptFormerConfig) -> tuple[nn.ModuleList, dict[str, Change]]:
    sites = [site for site in find_sites(backbone.model, config.towers) if site.kind == "mlp"]
    adapters = make_bottlenecks(backbone, sites, config, F.relu)
    places = [site.linear.rpartition(".")[0] for site in sites]  # the MLP the linear layer belongs to
    return adapters, {place: _beside(adapter, config.scale) for place, adapter in zip(places, adapters, strict=True)}


@register(
    "AdaptFormer",
    AdaptFormerConfig(LOOP),
    searched="lr",
    grid=(2.5e-2, 5e-2, 1e-1),
    elsewhere=ADAPTERS_ELSEWHERE,
    answer=answer_with(_adapters),
)
def adaptformer(backbone: Backbone, task: Task, config: AdaptFormerConfig, train: Train) -> Tuned:
    """Train X' = MLP(LN(X)) + s (ReLU(LN(X) W_down + b_down) W_up + b_up) + X in every layer; W_up starts at zero.

    The backbone stays as it is; the branches are attached to it for the length of an answer. Raises what
    `find_sites` and `train` raise.
    """
    return tune_bottlenecks(backbone, task, config, train, *_adapters(backbone, config))


def _beside(adapter: nn.Module, scale: float) -> Change:
    def change(inputs: Tensor, output: Tensor) -> Tensor:
        return output + scale * adapter(inputs)

    return change
