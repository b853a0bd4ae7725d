"""R-Adapter: adapters in both encoders, dropped and averaged while they learn, merged into the weights after.

Source: Kim et al. 2024 (arXiv 2408.05749).
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from radapter_lite import processes
from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.backbone import Backbone
from radapter_lite.backbone.load import sharded
from radapter_lite.backbone.sites import in_stem
from radapter_lite.losses import mpm_nce
from radapter_lite.methods.objectives import pair_loss
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LossConfig, Train, register
from radapter_lite.methods.whitening import whiten
from radapter_lite.seeding import seeded
from radapter_lite.settings import Above0, AtLeast0, Share
from radapter_lite.tasks import Task
from radapter_lite.training import count_steps
from radapter_lite.tuned import Tuned


@dataclass(frozen=True)
class RAdapterConfig(LossConfig):
    """R-Adapter's settings; its loss is MPM-NCE.

    Attributes:
        adapter: rank, dropping, averaging and towers.
        margin, smoothing: δ and ε of MPM-NCE.
        multi_positive: whether images of one text are each other's positives; False with margin, smoothing 0: InfoNCE.
        stem_lr: the learning rate of the image encoder's `Stem`; None leaves it as it is, as in the paper.
    """

    adapter: AdapterConfig = AdapterConfig()
    margin: AtLeast0 = 0.05
    smoothing: Share = 0.02
    multi_positive: bool = True
    stem_lr: Above0 | None = None

    def criterion(self, image_features: Tensor, text_features: Tensor, positives: Tensor) -> Tensor:
        """The loss of a batch: unit features [B, D] twice, pairs that match [B, B] bool."""
        if not self.multi_positive:
            positives = torch.eye(len(positives), dtype=positives.dtype, device=positives.device)
        settings = {"temperature": self.temperature, "margin": self.margin, "smoothing": self.smoothing}
        return mpm_nce(image_features, text_features, positives, **settings)


def recipe(**adapter: Any) -> RAdapterConfig:
    """What the search starts from on PictoCLIP; p is 0.1, for the paper's 0.2 costs ID accuracy in runs this short."""
    return RAdapterConfig(adapter=AdapterConfig(**{"drop_prob": 0.1, "momentum": 0.98, "whitening": 0.01} | adapter))


# For the paper's small sets, see registry.
PUBLISHED = ADAPTERS_ELSEWHERE | {"rank": 4, "drop_prob": 0.2, "momentum": 0.9, "margin": 0.1, "smoothing": 0.0}
PUBLISHED |= {"whitening": None}


@register("R-Adapter", recipe(), grid=(3e-3, 6e-3, 1.2e-2), elsewhere=PUBLISHED)
def r_adapter(backbone: Backbone, task: Task, config: RAdapterConfig, train: Train) -> Tuned:
    """Tune adapters; the delta holds their running averages. The backbone's weights stay as they are.

    Raises what `AdapterSet`, `train` and `check_momentum` raise.
    """
    check_momentum(config.adapter.momentum, count_steps(train.batches, train.config))
    with sharded(backbone) as own, ExitStack() as stack:
        adapters, stem = attach(own, task, config), None
        stack.callback(adapters.remove)
        trained: list[Any] = [{"params": [*adapters.parameters()]}]
        state: dict[str, Any] = {"adapters": adapters}
        if config.stem_lr is not None:
            stem = state["stem"] = Stem(backbone.model, config.adapter.momentum)
            stack.callback(stem.remove)
            trained.append({"params": [*stem.weights], "scale": config.stem_lr / config.training.lr})

        def accumulate() -> None:
            for part in state.values():
                part.accumulate()

        loss = pair_loss(own, task, config.criterion)
        history = replace(train, backbone=own)(loss, trained, after_step=accumulate, **state)
    delta = adapters.delta(original=backbone.model.state_dict(), changes=stem.changes() if stem else None)
    return Tuned(delta, history, sum(p.numel() for group in trained for p in group["params"]))


STEM = PUBLISHED | {"stem_lr": 1e-5}
register("R-Adapter, stem", replace(recipe(), stem_lr=1e-3), grid=(3e-3, 6e-3, 1.2e-2), elsewhere=STEM)(r_adapter)
register("R-Adapter, rank 4", recipe(rank=4), grid=(6e-3, 1.2e-2, 2.4e-2), elsewhere=PUBLISHED)(r_adapter)
# The paper's form; see whitening.
register("R-Adapter, unwhitened", recipe(whitening=None), grid=(1e-3, 2e-3, 4e-3), elsewhere=PUBLISHED)(r_adapter)
E0 = recipe(drop_prob=0.0, momentum=0.0, whitening=None)  # as the paper calls it
register("linear adapter", E0, grid=(1e-3, 2e-3, 4e-3), elsewhere=ADAPTERS_ELSEWHERE)(r_adapter)


class Stem(nn.Module):
    """A model's stem, thawed: all of the image encoder that comes before its first block, trained along with adapters.

    Adapters sit behind the blocks and cannot change what the stem lets through, which is where they fall short on a
    kind of image that pretraining hardly saw. This is not in the paper. The weights are the model's own, trained in
    place until `remove`; averages of their changes begin at zero. Raises ValueError for an encoder of unknown stem.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        super().__init__()
        own = {name: weight for name, weight in model.named_parameters() if in_stem(name)}
        if not own:
            encoder = f"the image encoder ({type(getattr(model, 'visual', model)).__name__})"
            advice = "leave stem_lr out, or choose a Transformer of open_clip or timm"
            raise ValueError(f"{encoder} has no stem that is known: {advice}")
        self.names, self.momentum = list(own), momentum
        self.weights = nn.ParameterList(own.values()).requires_grad_(True)  # the model's own
        self._before = [weight.detach().clone() for weight in own.values()]
        for number, weight in enumerate(self._before):
            self.register_buffer(f"average_{number}", torch.zeros_like(weight))

    @torch.no_grad()
    def accumulate(self) -> None:
        for average, weight, before in zip(self.buffers(), self.weights, self._before, strict=True):
            average.lerp_(weight - before, 1 - self.momentum)

    def changes(self) -> dict[str, Tensor]:
        """The averaged change of each weight, by its name in the model."""
        return dict(zip(self.names, self.buffers(), strict=True))

    @torch.no_grad()
    def remove(self) -> None:
        """Give the model its weights back as they were."""
        for weight, before in zip(self.weights, self._before, strict=True):
            weight.copy_(before)
            weight.grad = None


def attach(backbone: Backbone, task: Task, config: RAdapterConfig) -> AdapterSet:
    """Adapters on the backbone's model, in training mode, at the start of their training on the task.

    Raises ValueError for what several processes cannot share.
    """
    if processes.count() > 1 and config.adapter.drop != "adapter":
        drop = f"drop={config.adapter.drop!r}"
        raise ValueError(f"{drop} draws for each image, which processes divide: set it to 'adapter'")
    if processes.asks_for_shards() and config.stem_lr is not None:
        raise ValueError("stem_lr trains the backbone's own weights, which FSDP divides: leave stem_lr out, or FSDP")
    with seeded(config.training.seed), ExitStack() as stack:  # low-rank adapters begin at random
        adapters = AdapterSet(backbone.model, config.adapter).train()
        stack.callback(adapters.remove)
        if config.adapter.whitening is not None:
            whiten(adapters, backbone, task, config.training.seed)
        stack.pop_all()
    return adapters


def check_momentum(momentum: float, steps: int) -> None:
    """Raise ValueError where more than half of an average would still be its zero start: m^steps > 1/2."""
    left = momentum**steps
    if left > 0.5:
        enough = math.ceil(math.log(0.5) / math.log(momentum))
        lower = f"{math.floor(1000 * 0.5 ** (1 / steps)) / 1000:g}"
        found = f"{100 * left:.0f}% of its zero start in the average after {steps} step{'s' * (steps != 1)}"
        advice = f"lower momentum to {lower} or less, or train for {enough} steps or more"
        raise ValueError(f"momentum {momentum} leaves {found}: {advice}")
