"""What a model says of one image, with class names of the visitor's own, everywhere along α."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from radapter_lite.alpha_curve import AlphaCurve, FeatureCurve
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.encoding import image_features
from radapter_lite.view.sliders import STOPS


@dataclass(frozen=True, eq=False)
class Answer:
    """The curve of one image, and the names of its classes in the curve's order."""

    curve: AlphaCurve
    classes: Sequence[str]

    @cached_property
    def probabilities(self) -> Tensor:
        """In percent, at every stop of the slider [101, C]."""
        return 100 * torch.cat([self.curve.probabilities(alpha) for alpha in STOPS])

    @property
    def flips(self) -> list[tuple[float, str]]:
        """The α from which on each answer stands, and the answer; the first stands from α = 0."""
        tops = self.probabilities.argmax(1).tolist()
        starts = [stop for stop, top in enumerate(tops) if stop == 0 or top != tops[stop - 1]]
        return [(STOPS[stop], self.classes[tops[stop]]) for stop in starts]

    def leaders(self) -> list[int]:
        """The likeliest classes of those that reach 1% somewhere along α, by place in `classes`; five at most."""
        highest = self.probabilities.amax(0)
        likeliest = highest.argsort(descending=True)[:5].tolist()
        return [label for label in likeliest if highest[label] >= 1]

    def say(self) -> str:
        """The flips in a sentence."""
        (_, first), *later = self.flips
        if not later:
            return f"The answer is “{first}” at every α."
        turns = ", ".join(f"from α = {alpha:.2f} on “{name}”" for alpha, name in later)
        return f"The answer flips: “{first}” at α = 0, {turns}."


def choose_examples(
    backbone: Backbone, delta: Delta, images: ImageSet, text: FeatureCurve, classes: Sequence[str]
) -> ImageSet:
    """Eight test images of some classes from every domain in turn, those first whose answer tuning flips.

    One image of each class and domain is asked, at α = 0 and 1; where fewer than eight flip, others follow. `text` is
    the curve of `classes`. Raises ValueError if there is no test image of the classes.
    """
    test = images.select(split="test", classes=classes)
    one_each = test.table.drop_duplicates(["class", "domain"]).index.to_numpy()
    candidates = test.take(np.random.default_rng(0).permutation(one_each))
    tops = []
    for alpha in (0.0, 1.0):
        with delta.applied(backbone.model, alpha):
            features = image_features(backbone, candidates).cpu()
        tops.append((features @ text.at(alpha).T).argmax(1))
    table = candidates.table.assign(flips=(tops[0] != tops[1]).numpy(), row=np.arange(len(candidates)))
    table["turn"] = table.groupby(["flips", "domain"]).cumcount()
    ordered = table.sort_values(["flips", "turn", "row"], ascending=[False, True, True])
    return candidates.take(ordered["row"].to_numpy()[:8])
