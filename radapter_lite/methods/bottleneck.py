"""Bottleneck adapters, what Houlsby's adapter and AdaptFormer share: two layers with a non-linearity between.

Because of it they cannot be merged into CLIP's weights: there is no delta and no α, only the tuned model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import Change, attached
from radapter_lite.backbone.sites import Site
from radapter_lite.encoding import predict
from radapter_lite.methods.freezing import count
from radapter_lite.methods.objectives import contrastive_loss
from radapter_lite.methods.trainer import Train
from radapter_lite.seeding import seeded
from radapter_lite.tasks import Task
from radapter_lite.tuned import Answer, Tuned


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
