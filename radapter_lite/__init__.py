"""R-Adapter Lite: robust fine-tuning of CLIP-like models, in notebooks."""

__version__ = "0.1.0"
