"""R-Adapter Lite: robust fine-tuning of CLIP-like models, in notebooks.

    clip = load_clip()                              # or any open_clip model
    tuned = tune(clip, load_images().few_shot(16))  # R-Adapter; or tune(..., "LoRA", rank=8)
    table = sweep(clip, tuned, load_images().test)  # accuracy along α

The names below are loaded when they are first used, so that the console script answers at once; __init__.pyi
tells where each lives, to type checkers too.
"""

import lazy_loader

from radapter_lite.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
