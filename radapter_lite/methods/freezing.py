"""How a method gives the backbone back as it was: its weights, and which of them take a gradient."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No weight of the model takes a gradient inside; those that did before do so again after."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


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
