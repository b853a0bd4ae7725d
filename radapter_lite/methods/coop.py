"""CoOp: learned vectors before the class name, the same for all classes, in place of "a photo of a".

Source: Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (unified context, class name at the end).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.attaching import frozen
from radapter_lite.encoding import image_features
from radapter_lite.methods.freezing import count
from radapter_lite.methods.objectives import cosine_cross_entropy, frozen_features
from radapter_lite.methods.prompts import embed_words, encode_prompts, prompt_tokens, token_embedding
from radapter_lite.methods.registry import PROMPTS_ELSEWHERE, LossConfig, register
from radapter_lite.methods.trainer import Train
from radapter_lite.seeding import seeded
from radapter_lite.settings import check_whole
from radapter_lite.tasks import Batch, Task
from radapter_lite.tuned import Tuned


class Context(nn.Module):
    """The learned vectors [M, width], begun as `start`, or at random."""

    def __init__(self, count: int, width: int, start: Tensor | None = None) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(count, width) if start is None else start.float())

    def forward(self) -> Tensor:
        return self.vectors


@dataclass(frozen=True)
class CoOpConfig(LossConfig):
    """CoOp's settings.

    Attributes:
        context_length: M, how many vectors; with 0 it is zero-shot classification with the bare class name.
        init_text: words whose embeddings the vectors begin as, such as "a photo of a", of M tokens; None for
            random ones, N(0, 0.02²).
        module: what gives the vectors, made of their number, their width and what they are to begin as.
    """

    context_length: int = 4
    init_text: str | None = None
    module: ClassVar[type[nn.Module]] = Context

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, 0, "context_length")


def answer(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    """Cosines [N, T] of a task's images with its names behind the learned vectors, whatever names they are."""
    vectors = tuned.tensors["vectors"].to(backbone.device)
    head = encode_prompts(backbone, prompt_tokens(backbone, task.names, len(vectors)), vectors)
    return image_features(backbone, task.images) @ head.T


@register(
    "CoOp", CoOpConfig(init_text="an icon of a"), grid=(3e-4, 1e-3, 3e-3), elsewhere=PROMPTS_ELSEWHERE, answer=answer
)
def coop(backbone: Backbone, task: Task, config: CoOpConfig, train: Train) -> Tuned:
    """Train what makes the vectors by cross-entropy, both encoders frozen; similarities are cosines [N, C].

    The vectors are the same for all names, and they alone are used afterwards.

    Raises:
        ValueError: what `train` raises, for a text tower that is not open_clip's own, for class names that
            leave no room for the context, or for an `init_text` of another length.
    """
    table, start = token_embedding(backbone.model).weight, None
    if config.init_text is not None:
        start = embed_words(backbone, config.init_text, config.context_length)
    with seeded(config.training.seed):
        prompt = config.module(config.context_length, table.shape[1], start).to(table.device)
    tokens = prompt_tokens(backbone, task.names, config.context_length)

    def loss(batch: Batch) -> Tensor:
        features = frozen_features(backbone, batch)
        with torch.autocast(features.device.type, enabled=False):  # the vectors, in float32; then the encoder
            vectors = prompt()
        head = encode_prompts(backbone, tokens, vectors)
        return cosine_cross_entropy(features, head, batch.labels, config.temperature)

    with frozen(backbone.model):
        history = train(loss, prompt.parameters(), prompt=prompt)
    return Tuned({"vectors": prompt().detach()}, history, count(prompt.parameters()))
