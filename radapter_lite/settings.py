"""Settings are frozen dataclasses: checked when they are made, changed by name, and read back from JSON."""

import math
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

# What settings can be, in words.
WORDED: dict[Any, str] = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
WORDED |= {tuple: "texts in a tuple, as ('image',)", NoneType: "None"}


@dataclass(frozen=True, repr=False)
class Bound:
    """What a setting must be, in words, and whether a value is: the second part of its Annotated type."""

    expected: str
    holds: Callable[[Any], bool]

    def __repr__(self) -> str:
        return f"must {self.expected}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Above0 = Annotated[float, Bound("be a number above 0", lambda value: _number(value) and value > 0)]
AtLeast0 = Annotated[float, Bound("be a number of 0 or more", lambda value: _number(value) and value >= 0)]
Share = Annotated[float, Bound("lie in [0, 1)", lambda value: _number(value) and 0 <= value < 1)]
Part = Annotated[float, Bound("lie in (0, 1]", lambda value: _number(value) and 0 < value <= 1)]
Whole = Annotated[int, Bound("be a whole number of 0 or more", lambda value: type(value) is int and value >= 0)]
Count = Annotated[int, Bound("be a whole number of 1 or more", lambda value: type(value) is int and value >= 1)]


class Settings:
    """What settings inherit: making them raises ValueError for a value out of its type's bound."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value, parts = getattr(self, name), _parts(hint)
            if value is None and NoneType in parts:
                continue
            for bound in (bound for part in parts for bound in getattr(part, "__metadata__", ())):
                if not bound.holds(value):
                    raise ValueError(f"{name} must {bound.expected}, not {value!r}")


def with_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """A copy of a configuration with some settings changed, wherever in it they stand.

    Raises ValueError for a setting that the configuration does not have, and a value of a type that one does not take.
    """
    parts, known = vars(config), by_name(config)
    if odd := [name for name in settings if name not in (*known, *parts)]:
        raise ValueError(f"{type(config).__name__} has no setting {odd[0]!r}; it has {', '.join(known)}")
    changed = {name: settings[name] for name in parts if name in settings}
    for name, value in changed.items():  # of a type that the setting takes: "false" would count as true
        kinds = [get_origin(part) or part for part in _parts(get_type_hints(type(config))[name])]
        # Whether a number must be whole, the settings check themselves.
        taken = {*kinds, int, float} if {int, float} & {*kinds} else {*kinds}
        odd_bool = isinstance(value, bool) and bool not in taken
        if taken <= WORDED.keys() and (odd_bool or not isinstance(value, tuple(taken))):
            raise ValueError(f"{name} takes {' or '.join(WORDED[kind] for kind in kinds)}, not {value!r}")
    for name, part in parts.items():
        if is_dataclass(part := changed.get(name, part)):
            changed[name] = with_settings(part, {own: settings[own] for own in by_name(part) if own in settings})
    return replace(config, **changed)


def by_name(config: Any) -> dict[str, Any]:
    """A configuration's settings, those of its parts among them."""
    own = [by_name(part) if is_dataclass(part) else {name: part} for name, part in vars(config).items()]
    return dict(ChainMap(*reversed(own)))


def from_json(kind: Any, settings: Mapping[str, Any]) -> Any:
    """The configuration of type `kind` whose `asdict`, as JSON gives it back, is `settings`.

    Settings that the type does not have, as another version's, are left out.
    """
    hints, values = get_type_hints(kind), {}
    for name in hints.keys() & settings.keys():
        value = settings[name]
        if isinstance(value, Mapping):
            value = from_json(next(part for part in _parts(hints[name]) if is_dataclass(part)), value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows: of `A | None`, A and None."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
