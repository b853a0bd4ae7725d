"""What comes from the Hugging Face hub: the cache first, then the network, and one sentence when both fail."""

import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import huggingface_hub.constants

T = TypeVar("T")


class HubError(FileNotFoundError):
    """Something lies on the Hugging Face hub, and could not be had from there."""


def from_hub(build: Callable[[], T], what: str, alternative: str) -> T:
    """What `build` makes out of files that may lie on the hub, from the local cache where that is enough.

    Raises HubError if the hub cannot be reached, or build fails although it can; its sentence ends in the alternative.
    """
    hub = huggingface_hub.constants.ENDPOINT
    try:
        with _quietly(offline=True):
            return build()
    except (OSError, RuntimeError, ValueError) as error:
        if not reachable(hub):  # the hub's client retries for more than a minute
            raise HubError(f"{what} is not on this machine and {hub} cannot be reached: {alternative}") from error
    try:
        with _quietly():
            return build()
    except (OSError, RuntimeError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(f"{what} could not be fetched ({first_line}): {alternative}") from error


def reachable(url: str, timeout: float = 5) -> bool:
    """Whether a server answers within `timeout` seconds; never, where the hub's client is told to stay offline."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:  # an answer, if not a kind one
        return True
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _quietly(offline: bool = False) -> Iterator[None]:
    """Hold back open_clip's log lines about what load_clip says itself; `offline`, the hub's client as well."""
    constants, disabled = huggingface_hub.constants, logging.root.manager.disable
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, offline or constants.HF_HUB_OFFLINE
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.disable(disabled)
