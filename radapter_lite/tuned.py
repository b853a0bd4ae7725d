"""What a method gives back, whichever it was: it answers for images, and it is saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from radapter_lite.alpha import Alpha
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta, require_untouched, require_weights
from radapter_lite.delta_file import write_delta
from radapter_lite.encoding import predict
from radapter_lite.files import StrPath
from radapter_lite.seeding import seeded
from radapter_lite.tasks import Task, as_task

# How a method that learned tensors of its own answers on a task: similarities [N, T]; one that slides is given an α.
Answer = Callable[..., Tensor]
POINT = "point"  # the kind of a file that holds no delta


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a method learned.

    Attributes:
        learned: a `Delta`, and with it a curve along α; or a method's own tensors (a head, prompts, a network).
        history: a row a step, as `train` makes it; empty where nothing was trained by gradient, and after loading.
        trained_parameters: how many numbers were trained.
        method: its name in `METHODS`.
        config: its settings.
        meta: what else is known of it: the backbone, the texts it was trained with, versions.
        answer: how tensors answer; None for a delta.
        slides: whether they answer at every α.
    """

    learned: Delta | dict[str, Tensor]
    history: pd.DataFrame
    trained_parameters: int
    method: str = ""
    config: Any = None
    meta: dict[str, Any] = field(default_factory=dict)
    answer: Answer | None = None
    slides: bool = False

    @property
    def has_alpha(self) -> bool:
        """Whether there is a curve between zero-shot and tuned, or a point."""
        return self.slides or isinstance(self.learned, Delta)

    @property
    def delta(self) -> Delta:
        """The change of CLIP's weights. Raises ValueError for a method that learns none."""
        if isinstance(self.learned, Delta):
            return self.learned
        lacks = "no delta" if self.slides else "no delta and no α: it is one point"
        found = f"{self.method} learns no change of CLIP's own weights alone, so it has {lacks}"
        raise ValueError(f"{found}; call similarities(backbone, images) instead")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a method without a delta. Raises ValueError for one with."""
        if isinstance(self.learned, Delta):
            raise ValueError(f"{self.method} learned a delta: its tensors are those of tuned.delta")
        return self.learned

    def similarities(self, backbone: Backbone, images: ImageSet | Task, alpha: Alpha = 1.0) -> Tensor:
        """Similarities of images with their task's texts [N, T]: the largest of a row is the answer.

        The backbone is the one that it was tuned on, and keeps its weights; alpha is how much of the tuning, from 0
        (zero-shot) to 1. Raises ValueError for a backbone of other weights, or another α than 1 where there is none.
        """
        task = as_task(images)
        if isinstance(self.learned, Delta):
            with self.learned.applied(backbone.model, alpha):
                return predict(backbone, task)
        if self.slides and not (isinstance(alpha, int | float) and 0 <= alpha <= 1):
            raise ValueError(f"the α of {self.method} is one number from 0 to 1, not {alpha}")
        if not self.slides and alpha != 1:
            raise ValueError(f"{self.method} has no α: it is one point, which alpha=1 stands for, not {alpha}")
        assert self.answer is not None
        require_untouched(backbone.model)
        state = backbone.model.state_dict()
        require_weights(self.meta, state, state, f"{self.method} was trained with")
        with torch.no_grad(), seeded(0):  # what it builds may begin at random
            if alpha == 0:
                return predict(backbone, task)
            return self.answer(backbone, task, self, *([alpha] if self.slides else []))

    def with_meta(self, **about: Any) -> Tuned:
        """The same with more known of it, which is saved with it; JSON."""
        own = self.learned
        learned = replace(own, meta=own.meta | about) if isinstance(own, Delta) else own
        return replace(self, learned=learned, meta=self.meta | about)

    def save(self, path: StrPath) -> None:
        """Write `path`.safetensors (the tensors) and `path`.json (everything else, readable); `load_tuned` reads them.

        Raises OSError if the folder does not exist or cannot be written to.
        """
        if isinstance(self.learned, Delta):
            self.learned.save(path)
        else:
            write_delta(path, self.learned, {"kind": POINT} | self.meta)
