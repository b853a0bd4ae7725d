"""α, how much of a tuning is in the model: one number, or numbers by encoder and by layer."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from radapter_lite.backbone.sites import block_of, in_stem

Alpha = float | Mapping[str, float]


def scales(alpha: Alpha, names: Iterable[str]) -> Callable[[str], float]:
    """Return the function from a weight's name to its α; ValueError for no number in [0, 1], or an unknown key.

    Args:
        alpha: a number in [0, 1] for all weights, or numbers by key. Keys are towers ("image", "text", "other" for
            what belongs to neither), layers ("image.3"; "image.2.5" is block 5 of stage 2) and the image encoder's stem
            ("image.stem"). A layer's key wins over its tower's, and a weight that no key reaches has α = 0.
        names: the weights there are, or the modules that hold them; they say which keys exist.
    """
    if not isinstance(alpha, Mapping):
        value = checked(alpha)
        return lambda name: value
    known = keys_of(names)
    if odd := [key for key in alpha if key not in known]:
        raise ValueError(f"alpha has the unknown key {odd[0]!r}: it can be {', '.join(known)}")
    values = {key: checked(each, f"alpha of {key}") for key, each in alpha.items()}
    return lambda name: next((values[key] for key in _keys(name) if key in values), 0.0)


def _keys(name: str) -> list[str]:
    """The keys that reach a weight, the most specific first: "image.3", "image"."""
    other = name.startswith(("logit_", "text_decoder."))
    tower = "image" if name.startswith("visual.") else "other" if other else "text"
    part = block_of(name) or ("stem" if in_stem(name) else None)
    return [tower] if part is None else [f"{tower}.{part}", tower]


def keys_of(names: Iterable[str]) -> list[str]:
    """The keys by which α can be given for these weights: towers ("image"), then layers in order ("image.3")."""
    keys = {key for name in names for key in _keys(name)}

    def place(key: str) -> tuple[bool, str, bool, int, list[int]]:
        tower, *part = key.split(".")
        return bool(part), tower, part != ["stem"], -len(part), [int(number) for number in part if number != "stem"]

    return sorted(keys, key=place)


def checked(value: Any, what: str = "alpha") -> float:
    """The number that an α is. Raises ValueError for what is no number in [0, 1]."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{what} must be a number in [0, 1], from zero-shot to tuned, not {value!r}")
    return float(value)
