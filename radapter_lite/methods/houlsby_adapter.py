"""Houlsby's adapter: a bottleneck with a non-linearity behind every attention and every MLP of both encoders.

It stands where R-Adapter's linear map stands, and cannot be merged into the weights. Source: Houlsby et al. 2019
(arXiv 1902.00751).
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
        check_whole(self, 1, "bottleneck")
        check_above_zero(self, "temperature")


def _adapters(backbone: Backbone, config: HoulsbyConfig) -> tuple[nn.ModuleList, dict[str, Change]]:
    sites = find_sites(backbone.model, config.towers)
    adapters = make_bottlenecks(backbone, sites, config, F.gelu)
    return adapters, {site.hooked: _behind(adapter) for site, adapter in zip(sites, adapters, strict=True)}


@register(
    "Houlsby adapter",
    HoulsbyConfig(LOOP),
    searched="lr",
    grid=(5e-3, 1e-2, 2e-2),
    elsewhere=ADAPTERS_ELSEWHERE,
    answer=answer_with(_adapters),
)
def houlsby_adapter(backbone: Backbone, task: Task, config: HoulsbyConfig, train: Train) -> Tuned:
    """Train h(X) = X + GELU(X W_down + b_down) W_up + b_up behind every attention and MLP; W_up starts at zero.

    X is the sublayer's output before the residual sum. The backbone stays as it is; the adapters are attached to it for
    the length of an answer. Raises what `find_sites` and `train` raise.
    """
    return tune_bottlenecks(backbone, task, config, train, *_adapters(backbone, config))


def _behind(adapter: nn.Module) -> Change:
    def change(inputs: Tensor, output: Tensor) -> Tensor:
        return output + adapter(output)

    return change
