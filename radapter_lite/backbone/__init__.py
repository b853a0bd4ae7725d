"""One CLIP, from wherever: `load_clip(name)` gives a `Backbone`."""

from radapter_lite.backbone.load import Backbone, load_clip

__all__ = ["Backbone", "load_clip"]
