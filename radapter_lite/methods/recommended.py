"""The settings we recommend for a method, chosen on ID validation images alone.

For PictoCLIP they are the best of those that the search tried for each method and number of shots
(`assets/results/search.csv`, made by `radapter-lite bench search`), on images of a seed that no reported run uses. For
other backbones they are the paper's settings for small datasets for R-Adapter, and the usual small learning rates for
the rest, untuned. The temperature is always the backbone's own.
"""

import math
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import pandas as pd

from radapter_lite.backbone import Backbone
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
    own_seed = {"seed": seed} if known.trains else {}
    if backbone.name != "picto":
        return for_backbone(method, backbone, known.elsewhere | own_seed)
    budget = {"epochs": epochs(shots)} if known.trains else {}
    return for_backbone(method, backbone, searched(method, shots) | budget | own_seed)


def recommended_r_adapter(backbone: Backbone, shots: int = 16, seed: int = 0) -> RAdapterConfig:
    """R-Adapter's settings for a backbone and a number of shots."""
    return recommended("R-Adapter", backbone, shots, seed)


def recommended_flyp(backbone: Backbone, shots: int = 16, seed: int = 0) -> FLYPConfig:
    """The settings of full fine-tuning, both encoders, for a backbone and a number of shots."""
    return recommended("FLYP", backbone, shots, seed)


def for_backbone(method: str, backbone: Backbone, settings: dict[str, Any]) -> Any:
    """A method's configuration with some settings, and the backbone's own temperature if it has one to set.

    The papers' τ = 0.01 is the temperature that their CLIP was pretrained with. At a fifth of its own, a model is far
    too sure of itself: its loss is all outliers, and lowering it need not raise accuracy.
    """
    _, config = _set(METHODS[method].config, "temperature", backbone.temperature)
    return with_settings(config, settings)


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
    best = rows.loc[rows["validation"].idxmax()]
    return {best["setting"]: float(best["value"])}


@cache
def _search_results() -> pd.DataFrame:
    from radapter_lite.results import load_results

    return load_results("search")
