"""The package's version, and nothing else, so that everything may read it."""

__version__ = "0.2.0"
