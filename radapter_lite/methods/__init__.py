"""Ways to tune a backbone on a few images, one file each; `registry.METHODS` lists them under the names of the tables.

Each takes backbone, images and its configuration, leaves the backbone as it was, and returns a `Tuned` (a delta, and
with it a curve along α) or a `TunedPoint` (no change of weights, and no α). A model that carries adapters, or has a
delta applied to it, is refused.
"""
