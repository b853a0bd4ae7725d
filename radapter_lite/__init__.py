"""R-Adapter Lite: robust fine-tuning of CLIP-like models, in notebooks.

    clip = load_clip()                              # or any open_clip model
    tuned = tune(clip, load_images().few_shot(16))  # R-Adapter; or tune(..., "LoRA", rank=8)
    table = sweep(clip, tuned, load_images().test)  # accuracy along α

The names below are loaded when they are first used, so that the console script answers at once.
"""

from importlib import import_module
from typing import Any

from radapter_lite.version import __version__ as __version__

# Where each name lives; __init__.pyi tells type checkers the same.
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
    "publish.exercises": ("check",),
    "publish.notebook": ("sized",),
    "tasks": ("Classification", "Retrieval", "Segmentation", "Task"),
    "training": ("TrainingConfig", "train"),
    "tuned": ("Tuned",),
    "view.guesses": ("guess", "measured", "predictions"),
    "view.moving": ("move",),
    "view.sliders": ("alpha_slider", "encoder_map"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'radapter_lite' has no attribute {name!r}")
    return getattr(import_module(f"radapter_lite.{_MODULE_OF[name]}"), name)
