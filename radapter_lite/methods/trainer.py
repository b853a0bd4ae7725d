"""What a method is given to train with: the loop, with all that is not the method's own filled in."""

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.encoding import text_features
from radapter_lite.methods.tricks import with_tricks
from radapter_lite.processes import asks_for_shards
from radapter_lite.settings import by_name
from radapter_lite.tasks import Batch, Task
from radapter_lite.training import Loss, Parameters, TrainingConfig, train


@dataclass(frozen=True)
class Train:
    """`training.train` with the task's batches, the method's settings, its name and its checkpoint filled in.

    Attributes:
        run: `about` and `checkpoint`, as `training.train` takes them.
        backbone: whose model the loss calls; a method that trains a copy puts that here.
        head: the task's zero-shot text features [T, D], where a trick asks for them.
    """

    batches: Iterable[Batch]
    config: TrainingConfig
    run: dict[str, Any]
    backbone: Backbone
    head: Tensor | None = None

    def __call__(
        self, loss: Loss, parameters: Parameters, *, after_step: Callable[[], None] = lambda: None, **state: nn.Module
    ) -> pd.DataFrame:
        """Minimize the loss; `state` are the modules that change, by name. Returns the history."""
        if asks_for_shards() and not hasattr(self.backbone.model, "reshard"):  # as FSDP's have
            what = f"{self.run['about']['method']} does not train on a backbone in shards"
            raise ValueError(f"{what}: choose R-Adapter, or a configuration of Accelerate without FSDP")
        loss = with_tricks(loss, self.backbone, self.config, self.head)
        return train(self.batches, loss, parameters, self.config, state=state, after_step=after_step, **self.run)


def trainer(
    name: str, backbone: Backbone, task: Task, config: Any, checkpoint: str | os.PathLike[str] | None = None
) -> Train:
    """What a method of this name trains with; its configuration's `training` is of the loop, which may be None."""
    loop = getattr(config, "training", None) or TrainingConfig()
    images = task.images
    files = hashlib.sha256("\n".join(images.table["file"]).encode()).hexdigest()[:12]
    about: dict[str, Any] = {"method": name, "data": images.name, "images": len(images), "files": files}
    about |= {"backbone": backbone.name, "pretrained": backbone.pretrained, "prompts": backbone.prompts}
    about |= {key: value for key, value in by_name(config).items() if key not in by_name(loop)}
    head = text_features(backbone, task.texts(backbone)) if loop.r_drop else None
    run = {"about": about, "checkpoint": checkpoint}
    return Train(task.batches(backbone, loop), loop, run, backbone, head)


@contextmanager
def restored(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The model's weights may be trained inside, and are the original ones after; gives a copy of those."""
    before = copy.deepcopy(model.state_dict())
    try:
        yield before
    finally:
        model.load_state_dict(before)
        model.zero_grad()


def count(parameters: Iterable[Tensor]) -> int:
    """How many numbers there are in some parameters."""
    return sum(parameter.numel() for parameter in parameters)
