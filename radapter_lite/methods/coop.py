"""CoOp: learned vectors before the class name, the same for all classes, in place of "a photo of a".

Source: Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (unified context, class name at the end).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.methods.prompts import answer_with_prompts, tune_prompts
from radapter_lite.methods.registry import PROMPTS_ELSEWHERE, LossConfig, register
from radapter_lite.methods.trainer import Train
from radapter_lite.settings import check_whole
from radapter_lite.tasks import Task
from radapter_lite.tuned import Tuned


@dataclass(frozen=True)
class CoOpConfig(LossConfig):
    """CoOp's settings.

    Attributes:
        context_length: M, how many vectors; with 0 it is zero-shot classification with the bare class name.
        init_text: words whose embeddings the vectors begin as, such as "a photo of a", of M tokens; None for
            random ones, N(0, 0.02²).
    """

    context_length: int = 4
    init_text: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, 0, "context_length")


class Context(nn.Module):
    """The learned vectors [M, width], begun as `start`, or at random."""

    def __init__(self, count: int, width: int, start: Tensor | None = None) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(count, width) if start is None else start.float())

    def forward(self) -> Tensor:
        return self.vectors


@register(
    "CoOp",
    CoOpConfig(init_text="an icon of a"),
    grid=(3e-4, 1e-3, 3e-3),
    elsewhere=PROMPTS_ELSEWHERE,
    answer=answer_with_prompts,
)
def coop(backbone: Backbone, task: Task, config: CoOpConfig, train: Train) -> Tuned:
    """Train the context by cross-entropy, both encoders frozen; similarities are cosines [N, C].

    Raises:
        ValueError: what `train` raises, for a text tower that is not open_clip's own, for class names that
            leave no room for the context, or for an `init_text` of another length.
    """
    return tune_prompts(backbone, task, config, train, Context)
