"""Random numbers from a seed, which leave everyone else's as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers on the CPU begin with `seed` inside the with block, and go on as before after it.

    All that this package draws is drawn on the CPU, so that a seed means the same on every device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would move other devices' numbers
        yield
