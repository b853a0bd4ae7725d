"""The book's α slider: the notebooks' own pictures, made beforehand at every stop, so that no kernel is needed."""

import json
from string import Template

import numpy as np

from radapter_lite.alpha_curve import AlphaCurve
from radapter_lite.assets import BOOK, DEMO_DELTA
from radapter_lite.backbone import load_clip
from radapter_lite.data import load_images
from radapter_lite.delta import Delta
from radapter_lite.view.sliders import STOPS, AlphaSlider, alpha_slider

PAGE = BOOK / "slider.html"
SCRIPT = PAGE.with_name("slider.js")
SHOWN = STOPS[::2]  # the stops that are kept, from 0 to 1
POOL = 40  # test images of each domain


def widget() -> AlphaSlider:
    """The slider of the demonstration delta, over some test images of every domain."""
    backbone, delta, test = load_clip(), Delta.load(DEMO_DELTA), load_images().test
    rng = np.random.default_rng(0)
    rows = [row for _, own in test.table.groupby("domain", sort=False) for row in rng.permutation(own.index)[:POOL]]
    images = test.take(rows)
    return alpha_slider({"R-Adapter": AlphaCurve.measure(backbone, delta, images)}, images)


def slider_body() -> str:
    """The page of the slider: its pictures, and the script that shows one after the other.

    Raises FileNotFoundError or ValueError, where the delta is missing or damaged.
    """
    slider, frames = widget(), []
    for stop in SHOWN:
        slider.slider.value = stop
        frames.append(slider.picture.value)
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        last=len(frames) - 1,
        pool=POOL,
        styles=slider.children[1].value,
        frames=json.dumps(frames, separators=(",", ":")).replace("</", "<\\/"),
        script=SCRIPT.read_text(encoding="utf-8"),
    )
