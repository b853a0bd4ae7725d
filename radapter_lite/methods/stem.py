"""The stem trained along with adapters: all of the image encoder that comes before its first block.

Adapters sit behind the blocks and cannot change what the stem lets through. Where the images are of a kind that
pretraining hardly saw, that is where they fall short; the stem is small, and its change is averaged and merged as
theirs are. This is not in the paper.
"""

import torch
from torch import Tensor, nn

from radapter_lite.backbone.sites import in_stem


class Stem(nn.Module):
    """The stem of a model, thawed: its weights are the model's own, and are trained in place until `remove`.

    `accumulate` moves the running averages of their changes, which begin at zero as those of adapters do.

    Raises:
        ValueError: for an image encoder whose stem is not known.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        super().__init__()
        own = {name: weight for name, weight in model.named_parameters() if in_stem(name)}
        if not own:
            raise ValueError(
                f"the image encoder ({type(getattr(model, 'visual', model)).__name__}) has no stem that is known: "
                f"leave stem_lr out, or choose a Transformer of open_clip or timm"
            )
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
