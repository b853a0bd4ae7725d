"""Settings are frozen dataclasses: checked when they are made, changed by name, and read back from JSON."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
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


def _number(expected: str, holds: Callable[[float], bool]) -> Bound:
    def is_one(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and holds(value)

    return Bound(expected, is_one)


def _whole(least: int) -> Bound:
    return Bound(f"be a whole number of {least} or more", lambda value: type(value) is int and value >= least)


Above0 = Annotated[float, _number("be a number above 0", lambda value: value > 0)]
AtLeast0 = Annotated[float, _number("be a number of 0 or more", lambda value: value >= 0)]
Share = Annotated[float, _number("lie in [0, 1)", lambda value: 0 <= value < 1)]
Part = Annotated[float, _number("lie in (0, 1]", lambda value: 0 < value <= 1)]
Whole = Annotated[int, _whole(0)]
Count = Annotated[int, _whole(1)]


class Settings:
    """What settings inherit: making them raises ValueError for a value out of its type's bound."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for name in (field.name for field in fields(self)):  # type: ignore[arg-type]  # every heir is a dataclass
            value, parts = getattr(self, name), _parts(hints[name])
            if value is None and NoneType in parts:
                continue
            for bound in (bound for part in parts for bound in getattr(part, "__metadata__", ())):
                if not bound.holds(value):
                    raise ValueError(f"{name} must {bound.expected}, not {value!r}")


def with_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """A copy of a configuration with some settings changed, wherever in it they stand.

    Raises ValueError for a setting that the configuration does not have, and a value of a type that one does not take.
    """
    for name, value in settings.items():
        changed = _set(config, name, value)
        if changed is None:
            known = ", ".join(setting_names(config))
            raise ValueError(f"{type(config).__name__} has no setting {name!r}; it has {known}")
        config = changed
    return config


def setting_names(config: Any) -> list[str]:
    """The names of a configuration's settings, those of its parts among them."""
    names: list[str] = []
    for field in fields(config):
        part = getattr(config, field.name)
        names += setting_names(part) if is_dataclass(part) else [field.name]
    return names


def from_json(kind: Any, settings: Mapping[str, Any]) -> Any:
    """The configuration of type `kind` whose `asdict`, as JSON gives it back, is `settings`.

    Settings that the type does not have, as another version's, are left out.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in settings:
            continue
        value, hint = settings[field.name], hints[field.name]
        if isinstance(value, Mapping):
            value = from_json(next(part for part in _parts(hint) if is_dataclass(part)), value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows: of `A | None`, A and None."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _check_type(config: Any, name: str, value: Any) -> None:
    """Raise ValueError for a value of a type that the setting does not take: "false" would count as true."""
    kinds = [get_origin(part) or part for part in _parts(get_type_hints(type(config))[name])]
    if not all(kind in WORDED for kind in kinds):
        return
    # Whether a number must be whole, the settings check themselves.
    numbers = [int, float] if float in kinds or int in kinds else []
    if not isinstance(value, tuple(kinds + numbers)) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(WORDED[kind] for kind in kinds)
        raise ValueError(f"{name} takes {expected}, not {value!r}")


def _set(config: Any, name: str, value: Any) -> Any:
    """A copy with one setting changed, in a part of it if it stands there; None if it has no such setting."""
    for field in fields(config):
        part = getattr(config, field.name)
        if field.name == name:
            _check_type(config, name, value)
            return replace(config, **{name: value})
        if is_dataclass(part) and (changed := _set(part, name, value)) is not None:
            return replace(config, **{field.name: changed})
    return None
