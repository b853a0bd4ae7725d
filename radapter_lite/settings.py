"""Settings are frozen dataclasses: checked when they are made, changed by name, and read back from JSON."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

# What settings can be, in words.
WORDED: dict[Any, str] = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
WORDED |= {tuple: "texts in a tuple, as ('image',)", NoneType: "None"}


def check_above_zero(settings: Any, *names: str) -> None:
    """Raise ValueError for a setting that is no finite number above 0."""
    _check(settings, names, "be a number above 0", lambda value: _is_number(value) and value > 0)


def check_zero_or_more(settings: Any, *names: str) -> None:
    """Raise ValueError for a setting that is no finite number of 0 or more."""
    _check(settings, names, "be a number of 0 or more", lambda value: _is_number(value) and value >= 0)


def check_whole(settings: Any, least: int, *names: str) -> None:
    """Raise ValueError for a setting that is no whole number of `least` or more."""
    _check(settings, names, f"be a whole number of {least} or more", lambda v: type(v) is int and v >= least)


def check_share(settings: Any, *names: str) -> None:
    """Raise ValueError for a setting outside [0, 1)."""
    _check(settings, names, "lie in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)


def _check(settings: Any, names: Iterable[str], expected: str, holds: Callable[[Any], bool]) -> None:
    for name in names:
        if not holds(value := getattr(settings, name)):
            raise ValueError(f"{name} must {expected}, not {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def with_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """A copy of a configuration with some settings changed, wherever in it they stand.

    Raises:
        ValueError: for a setting that the configuration does not have, the sentence lists those it has; and for a value
            of a type that the setting does not take.
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
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


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
