"""R-Adapter Lite: robust fine-tuning of CLIP-like models, in notebooks.

The names below are loaded when they are first used, so that the console script answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from radapter_lite.adapter import AdapterConfig, AdapterSet, LinearAdapter
    from radapter_lite.backbones import Backbone, load_clip
    from radapter_lite.data import ImageSet, load_images
    from radapter_lite.delta import Delta
    from radapter_lite.evaluation import evaluate, predict, sweep, text_head
    from radapter_lite.losses import info_nce, mpm_nce
    from radapter_lite.methods import FineTuningConfig, RAdapterConfig, fine_tune, tune_r_adapter
    from radapter_lite.sites import find_sites
    from radapter_lite.training import TrainingConfig, Tuned

_HOME = {
    "adapter": ("AdapterConfig", "AdapterSet", "LinearAdapter"),
    "backbones": ("Backbone", "load_clip"),
    "data": ("ImageSet", "load_images"),
    "delta": ("Delta",),
    "evaluation": ("evaluate", "predict", "sweep", "text_head"),
    "losses": ("info_nce", "mpm_nce"),
    "methods": ("FineTuningConfig", "RAdapterConfig", "fine_tune", "tune_r_adapter"),
    "sites": ("find_sites",),
    "training": ("TrainingConfig", "Tuned"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AdapterConfig",
    "AdapterSet",
    "Backbone",
    "Delta",
    "FineTuningConfig",
    "ImageSet",
    "LinearAdapter",
    "RAdapterConfig",
    "TrainingConfig",
    "Tuned",
    "evaluate",
    "find_sites",
    "fine_tune",
    "info_nce",
    "load_clip",
    "load_images",
    "mpm_nce",
    "predict",
    "sweep",
    "text_head",
    "tune_r_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'radapter_lite' has no attribute {name!r}")
    return getattr(import_module(f"radapter_lite.{_MODULE_OF[name]}"), name)
