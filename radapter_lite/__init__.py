"""R-Adapter Lite: robust fine-tuning of CLIP-like models, in notebooks.

    clip = load_clip()                              # or any open_clip model
    tuned = tune(clip, load_images().few_shot(16))  # R-Adapter; or tune(..., "LoRA", rank=8)
    table = sweep(clip, tuned, load_images().test)  # accuracy along α

The names below are loaded when they are first used, so that the console script answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from radapter_lite.version import __version__ as __version__

if TYPE_CHECKING:
    from radapter_lite.adapter import AdapterConfig, AdapterSet, LinearAdapter
    from radapter_lite.alpha_curve import AlphaCurve
    from radapter_lite.backbone import Backbone, load_clip
    from radapter_lite.backbone.sites import find_sites
    from radapter_lite.data import ImageSet, load_images
    from radapter_lite.delta import Delta
    from radapter_lite.encoding import predict, text_head
    from radapter_lite.evaluation import evaluate, segment, sweep
    from radapter_lite.losses import info_nce, mpm_nce
    from radapter_lite.methods import METHODS, load_tuned, recommended, register, tune
    from radapter_lite.tasks import Classification, Retrieval, Segmentation, Task
    from radapter_lite.training import TrainingConfig, train
    from radapter_lite.tuned import Tuned

_HOME = {
    "adapter": ("AdapterConfig", "AdapterSet", "LinearAdapter"),
    "alpha_curve": ("AlphaCurve",),
    "backbone": ("Backbone", "load_clip"),
    "backbone.sites": ("find_sites",),
    "data": ("ImageSet", "load_images"),
    "delta": ("Delta",),
    "encoding": ("predict", "text_head"),
    "evaluation": ("evaluate", "segment", "sweep"),
    "losses": ("info_nce", "mpm_nce"),
    "methods": ("METHODS", "load_tuned", "recommended", "register", "tune"),
    "tasks": ("Classification", "Retrieval", "Segmentation", "Task"),
    "training": ("TrainingConfig", "train"),
    "tuned": ("Tuned",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "METHODS",
    "AdapterConfig",
    "AdapterSet",
    "AlphaCurve",
    "Backbone",
    "Classification",
    "Delta",
    "ImageSet",
    "LinearAdapter",
    "Retrieval",
    "Segmentation",
    "Task",
    "TrainingConfig",
    "Tuned",
    "evaluate",
    "find_sites",
    "info_nce",
    "load_clip",
    "load_images",
    "load_tuned",
    "mpm_nce",
    "predict",
    "recommended",
    "register",
    "segment",
    "sweep",
    "text_head",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'radapter_lite' has no attribute {name!r}")
    return getattr(import_module(f"radapter_lite.{_MODULE_OF[name]}"), name)
