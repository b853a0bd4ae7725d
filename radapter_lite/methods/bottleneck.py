"""Bottleneck adapters, Houlsby's and AdaptFormer's: two layers with a non-linearity between.

Because of it they cannot be merged into CLIP's weights: there is no delta and no α, only the tuned model. Houlsby's
stand where R-Adapter's linear maps stand, behind every attention and MLP; AdaptFormer's beside every MLP.

Source: Houlsby et al. 2019 (arXiv 1902.00751); Chen et al. 2022 (AdaptFormer, arXiv 2205.13535).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import Change, attached
from radapter_lite.backbone.sites import TOWERS, Site, find_sites
from radapter_lite.encoding import predict
from radapter_lite.methods.freezing import count
from radapter_lite.methods.objectives import contrastive_loss
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LossConfig, register
from radapter_lite.methods.trainer import Train
from radapter_lite.seeding import seeded
from radapter_lite.settings import check_above_zero, check_whole
from radapter_lite.tasks import Task
from radapter_lite.tuned import Answer, Tuned


@dataclass(frozen=True)
class HoulsbyConfig(LossConfig):
    """The Houlsby adapter's settings; its contrastive loss is FLYP's.

    Attributes:
        bottleneck: width between the two layers.
        towers: which encoders are adapted.
    """

    bottleneck: int = 16
    towers: tuple[str, ...] = TOWERS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, 1, "bottleneck")


@dataclass(frozen=True)
class AdaptFormerConfig(HoulsbyConfig):
    """AdaptFormer's settings: Houlsby's, and s, what the branch is multiplied by."""

    scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "scale")


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


def make_bottlenecks(
    backbone: Backbone, sites: Sequence[Site], config: Any, activation: Callable[[Tensor], Tensor]
) -> nn.ModuleList:
    """A bottleneck for each site, as it begins; W_down is drawn with the seed. `config` is a method's settings."""
    with seeded(config.training.seed):
        return nn.ModuleList(
            Bottleneck(backbone.model.get_parameter(f"{site.linear}.weight"), config.bottleneck, activation)
            for site in sites
        )


def tune_bottlenecks(
    backbone: Backbone, task: Task, config: Any, train: Train, adapters: nn.ModuleList, changes: Mapping[str, Change]
) -> Tuned:
    """Train the adapters, attached by `changes`, with FLYP's loss; what is learned is their weights."""
    with attached(backbone.model, changes):
        loss = contrastive_loss(backbone, task, config.temperature)
        history = train(loss, adapters.parameters(), adapters=adapters)
    return Tuned(dict(adapters.state_dict()), history, count(adapters.parameters()))


def answer_with(adapters_of: Callable[[Backbone, Any], tuple[nn.ModuleList, dict[str, Change]]]) -> Answer:
    """How a method answers whose adapters, and where they go, `adapters_of` makes from its settings."""

    def answer(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
        adapters, changes = adapters_of(backbone, tuned.config)
        adapters.load_state_dict(tuned.tensors)
        with attached(backbone.model, changes):
            return predict(backbone, task)

    return answer


def _behind_sublayers(backbone: Backbone, config: HoulsbyConfig) -> tuple[nn.ModuleList, dict[str, Change]]:
    sites = find_sites(backbone.model, config.towers)
    adapters = make_bottlenecks(backbone, sites, config, F.gelu)
    return adapters, {site.hooked: _behind(adapter) for site, adapter in zip(sites, adapters, strict=True)}


@register(
    "Houlsby adapter",
    HoulsbyConfig(),
    grid=(5e-3, 1e-2, 2e-2),
    elsewhere=ADAPTERS_ELSEWHERE,
    answer=answer_with(_behind_sublayers),
)
def houlsby_adapter(backbone: Backbone, task: Task, config: HoulsbyConfig, train: Train) -> Tuned:
    """Train h(X) = X + GELU(X W_down + b_down) W_up + b_up behind every attention and MLP; W_up starts at zero.

    X is the sublayer's output before the residual sum. The backbone stays as it is; the adapters are attached to it for
    the length of an answer. Raises what `find_sites` and `train` raise.
    """
    return tune_bottlenecks(backbone, task, config, train, *_behind_sublayers(backbone, config))


def _behind(adapter: nn.Module) -> Change:
    return lambda inputs, output: output + adapter(output)


def _beside_mlps(backbone: Backbone, config: AdaptFormerConfig) -> tuple[nn.ModuleList, dict[str, Change]]:
    sites = [site for site in find_sites(backbone.model, config.towers) if site.kind == "mlp"]
    adapters = make_bottlenecks(backbone, sites, config, F.relu)
    places = [site.linear.rpartition(".")[0] for site in sites]  # the MLP the linear layer belongs to
    return adapters, {place: _beside(adapter, config.scale) for place, adapter in zip(places, adapters, strict=True)}


@register(
    "AdaptFormer",
    AdaptFormerConfig(),
    grid=(2.5e-2, 5e-2, 1e-1),
    elsewhere=ADAPTERS_ELSEWHERE,
    answer=answer_with(_beside_mlps),
)
def adaptformer(backbone: Backbone, task: Task, config: AdaptFormerConfig, train: Train) -> Tuned:
    """Train X' = MLP(LN(X)) + s (ReLU(LN(X) W_down + b_down) W_up + b_up) + X in every layer; W_up starts at zero.

    The backbone stays as it is; the branches are attached to it for the length of an answer. Raises what
    `find_sites` and `train` raise.
    """
    return tune_bottlenecks(backbone, task, config, train, *_beside_mlps(backbone, config))


def _beside(adapter: nn.Module, scale: float) -> Change:
    return lambda inputs, output: output + scale * adapter(inputs)
