"""How a method that trains the backbone's weights gives them back as they were, and how many they are."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


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
