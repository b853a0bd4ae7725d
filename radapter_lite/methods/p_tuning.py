"""P-tuning: CoOp's learned vectors, made by an LSTM from learned inputs, so that they depend on each other.

Source: Liu et al. 2021, "GPT Understands, Too": a bidirectional LSTM of two layers, then an MLP of two.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radapter_lite.methods.coop import CoOpConfig, answer, coop
from radapter_lite.methods.registry import PROMPTS_ELSEWHERE, register
from radapter_lite.settings import Count


class PromptLSTM(nn.Module):
    """The vectors [M, width]: inputs [M, width], through an LSTM of half the width each way, then an MLP.

    With a `start` [M, width] that is added to them, the last layer begins at zero, and the vectors as the start.
    """

    start: Tensor | None

    def __init__(self, count: int, width: int, start: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.inputs = nn.Parameter(torch.randn(count, width))
        self.lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True)
        last = nn.Linear(width, width)
        if start is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(2 * (width // 2), width), nn.ReLU(), last)

    def forward(self) -> Tensor:
        hidden, _ = self.lstm(self.inputs)  # (M, width): a sequence without a batch
        vectors = self.mlp(hidden)
        return vectors if self.start is None else self.start + vectors


@dataclass(frozen=True)
class PTuningConfig(CoOpConfig):
    """CoOp's settings, with one vector or more; without `init_text` they begin anywhere, the published form."""

    context_length: Count = 4
    module = PromptLSTM


# The LSTM, its inputs and its MLP are trained.
p_tuning = register(
    "P-tuning",
    PTuningConfig(init_text="an icon of a"),
    grid=(1e-4, 3e-4, 1e-3),
    elsewhere=PROMPTS_ELSEWHERE,
    answer=answer,
)(coop)
