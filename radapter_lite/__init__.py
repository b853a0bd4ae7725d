"""R-Adapter Lite: robust fine-tuning of CLIP-like models, in notebooks.

The names below are loaded when they are first used, so that the console script answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from radapter_lite.version import __version__ as __version__

if TYPE_CHECKING:
    from radapter_lite.adapter import AdapterConfig, AdapterSet, LinearAdapter
    from radapter_lite.backbone import Backbone, load_clip
    from radapter_lite.backbone.sites import find_sites
    from radapter_lite.data import ImageSet, load_images
    from radapter_lite.delta import Delta
    from radapter_lite.evaluation import evaluate, predict, sweep, text_head
    from radapter_lite.losses import info_nce, mpm_nce
    from radapter_lite.methods.fine_tuning import FineTuningConfig, fine_tune
    from radapter_lite.methods.flyp import FLYPConfig, flyp
    from radapter_lite.methods.r_adapter import RAdapterConfig, tune_r_adapter
    from radapter_lite.methods.recommended import recommended
    from radapter_lite.training import TrainingConfig, Tuned, TunedPoint

_HOME = {
    "adapter": ("AdapterConfig", "AdapterSet", "LinearAdapter"),
    "backbone": ("Backbone", "load_clip"),
    "data": ("ImageSet", "load_images"),
    "delta": ("Delta",),
    "evaluation": ("evaluate", "predict", "sweep", "text_head"),
    "losses": ("info_nce", "mpm_nce"),
    "methods.fine_tuning": ("FineTuningConfig", "fine_tune"),
    "methods.flyp": ("FLYPConfig", "flyp"),
    "methods.r_adapter": ("RAdapterConfig", "tune_r_adapter"),
    "methods.recommended": ("recommended",),
    "backbone.sites": ("find_sites",),
    "training": ("TrainingConfig", "Tuned", "TunedPoint"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AdapterConfig",
    "AdapterSet",
    "Backbone",
    "Delta",
    "FLYPConfig",
    "FineTuningConfig",
    "ImageSet",
    "LinearAdapter",
    "RAdapterConfig",
    "TrainingConfig",
    "Tuned",
    "TunedPoint",
    "evaluate",
    "find_sites",
    "fine_tune",
    "flyp",
    "info_nce",
    "load_clip",
    "load_images",
    "mpm_nce",
    "predict",
    "recommended",
    "sweep",
    "text_head",
    "tune_r_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'radapter_lite' has no attribute {name!r}")
    return getattr(import_module(f"radapter_lite.{_MODULE_OF[name]}"), name)
