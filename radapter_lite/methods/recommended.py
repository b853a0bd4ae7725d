"""The settings we recommend for a method, chosen on ID validation images alone.

For PictoCLIP they are the best of those that the search tried for each method and number of shots
(`assets/results/search.csv`, made by `radapter-lite bench search`), on images of a seed that no reported run uses. For
other backbones they are the paper's few-shot settings for R-Adapter, and the usual small learning rates for the rest,
untuned.
"""

import json
import math
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import pandas as pd

from radapter_lite.backbones import Backbone
from radapter_lite.methods.flyp import FLYPConfig
from radapter_lite.methods.r_adapter import RAdapterConfig
from radapter_lite.methods.registry import EPOCHS, METHODS


def recommended(method: str, backbone: Backbone, shots: int = 16, seed: int = 0) -> Any:
    """The configuration of a method for a backbone and a number of shots.

    Raises:
        ValueError: for a method that is none of `METHODS`.
    """
    if method not in METHODS:
        raise ValueError(f"{method} is no method of this kit; there are {', '.join(METHODS)}")
    known = METHODS[method]
    if backbone.name == "picto":
        budget = {"epochs": epochs(shots), "seed": seed} if known.trains else {}
        return with_settings(known.config, searched(method, shots) | budget)
    return with_settings(known.config, known.elsewhere | ({"seed": seed} if known.trains else {}))


def recommended_r_adapter(backbone: Backbone, shots: int = 16, seed: int = 0) -> RAdapterConfig:
    """R-Adapter's settings for a backbone and a number of shots."""
    return recommended("R-Adapter", backbone, shots, seed)


def recommended_flyp(backbone: Backbone, shots: int = 16, seed: int = 0) -> FLYPConfig:
    """The settings of full fine-tuning, both encoders, for a backbone and a number of shots."""
    return recommended("FLYP", backbone, shots, seed)


def epochs(shots: int) -> int:
    """Passes over the images for a number of shots, from `EPOCHS`: those of the nearest number in it."""
    return EPOCHS[min(EPOCHS, key=lambda k: abs(math.log2(k / max(shots, 1))))]


def with_settings(config: Any, settings: dict[str, Any]) -> Any:
    """A copy of a configuration with some settings changed, wherever in it they stand.

    Raises:
        ValueError: for a setting that the configuration does not have.
    """
    for name, value in settings.items():
        found, config = _set(config, name, value)
        if not found:
            raise ValueError(f"{type(config).__name__} has no setting {name!r}")
    return config


def _set(config: Any, name: str, value: Any) -> tuple[bool, Any]:
    for field in fields(config):
        if field.name == name:
            return True, replace(config, **{name: value})
        part = getattr(config, field.name)
        if is_dataclass(part):
            found, changed = _set(part, name, value)
            if found:
                return True, replace(config, **{field.name: changed})
    return False, config


def searched(method: str, shots: int) -> dict[str, Any]:
    """The best settings that the search found: those of the number of shots nearest to `shots`, the larger of two."""
    own = _search_results().query("method == @method")
    nearest = min(own["shots"].unique(), key=lambda k: (abs(math.log2(k / max(shots, 1))), -k))
    rows = own[own["shots"] == nearest]
    return json.loads(rows.loc[rows["validation"].idxmax(), "settings"])


@cache
def _search_results() -> pd.DataFrame:
    from radapter_lite.bench.tables import load_results

    return load_results("search")
