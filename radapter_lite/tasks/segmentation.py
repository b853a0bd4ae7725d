"""Open-vocabulary segmentation: regions are classified as images are, and their classes painted where they lie.

Source: Liang et al. 2023 (OVSeg, arXiv 2210.04150); Cheng et al. 2021 (MaskFormer), for regions that overlap.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from torch import Tensor

from radapter_lite.data import ImageSet
from radapter_lite.data.scenes import Scene, crop, iou, proposals
from radapter_lite.tasks.classification import Classification

THRESHOLD = 0.2  # the best on ID validation scenes, at zero-shot
LARGEST = 720  # pixels on the longer side of a picture that is given


@dataclass(frozen=True, eq=False)
class Segmentation(Classification):
    """Crops of scenes' regions, among the names of all classes; the score is the mean IoU of the painted scenes.

    Attributes:
        images: crops; their table has scene and region, by number, the class of the object that fits best, and its iou.
        regions: of each scene, bool [P, H, W].
        temperature: of the backbone, by which similarities become probabilities.
        threshold: what a pixel's class must have to be painted; a pixel with less is ground.
        tuned_on: names that were tuned on; the score is then told for these and for the others too.
    """

    scenes: Sequence[Scene]
    regions: Sequence[np.ndarray]
    temperature: float
    threshold: float = THRESHOLD
    tuned_on: Collection[str] | None = None
    metric = "miou"

    @classmethod
    def of(
        cls, scenes: Sequence[Scene], classes: Sequence[str], temperature: float, oracle: bool = False
    ) -> "Segmentation":
        """Segmentation of scenes, the first one's domain ID: by proposals, or to tune on by the objects' masks."""
        regions = [scene.objects if oracle else proposals(scene.image) for scene in scenes]
        rows, pictures = [], {}
        for number, (scene, own) in enumerate(zip(scenes, regions, strict=True)):
            for place, region in enumerate(own):
                file = f"{scene.domain}/{scene.split}/{number}/{place}"
                pictures[file] = crop(scene.image, region)
                fit, best = max(((iou(region, each), k) for k, each in enumerate(scene.objects)), default=(0.0, -1))
                name, design = (classes[scene.labels[best]], scene.files[best]) if best >= 0 else (classes[0], "")
                rows.append((file, name, scene.domain, scene.split, number, place, fit, design))
        table = pd.DataFrame(rows, columns=["file", "class", "domain", "split", "scene", "region", "iou", "design"])
        table["view"] = table.groupby("design").cumcount()  # few shots take other designs first
        images = ImageSet.from_table(table, classes=classes, name="crops", read=pictures.__getitem__)
        return cls(images, scenes, regions, temperature)

    @classmethod
    def of_picture(cls, picture: Image.Image, names: Sequence[str], temperature: float) -> "Segmentation":
        """Segmentation of one picture, made smaller beyond 720 pixels. Raises ValueError for fewer than two names."""
        if len(set(names)) < 2:
            raise ValueError(f"segmentation was given {len(set(names))} class name: give two or more to tell apart")
        limit = min(LARGEST, max(picture.size))
        image = np.asarray(ImageOps.contain(picture.convert("RGB"), (limit, limit)))
        nothing = np.zeros((0, *image.shape[:2]), bool)
        return cls.of([Scene(image, nothing, np.zeros(0, int), (), "picture", "test")], names, temperature)

    def on(self, images: ImageSet) -> "Segmentation":
        return replace(self, images=images)

    def paint(self, similarities: Tensor) -> dict[int, np.ndarray]:
        """By scene, the class of each pixel, that of the largest sum over its regions, and -1 for ground [H, W]."""
        probabilities = (similarities.float().cpu() / self.temperature).softmax(1).numpy()
        painted, places = {}, self.images.table["region"].to_numpy()
        for scene, rows in self.images.table.groupby("scene", sort=False).indices.items():
            regions = self.regions[scene][places[rows]]
            inside = regions.any(0)
            totals = regions[:, inside].T.astype(probabilities.dtype) @ probabilities[rows]  # (pixels, C)
            painted[int(scene)] = labels = np.full(inside.shape, -1)
            labels[inside] = np.where(totals.max(1) > self.threshold, totals.argmax(1), -1)
        return painted

    def score(self, similarities: Tensor, zero_shot: Tensor | None = None) -> pd.DataFrame:
        """Mean intersection over union in percent of the classes that occur: a row a domain, ID first.

        Returns:
            domain, is_id, miou, images (the scenes); with `tuned_on` also tuned and novel, the means over those names
            and over the others; and of the pixels that zero-shot's [N, C] has right what is forgotten.
        """
        painted, before = self.paint(similarities), self.paint(similarities if zero_shot is None else zero_shot)
        tuned = np.isin(self.names, list(self.tuned_on or ()))
        rows = []
        for domain in self.images.domains:
            own = [number for number in painted if self.scenes[number].domain == domain]
            truth = np.stack([self.scenes[number].mask for number in own])
            found, first = (np.stack([masks[number] for number in own]) for masks in (painted, before))
            ious = 100 * class_ious(found, truth, len(self.names))
            row = {"domain": domain, "is_id": domain == self.images.id_domain, "miou": np.nanmean(ious)}
            if self.tuned_on is not None:
                row |= {"tuned": np.nanmean(ious[tuned]), "novel": np.nanmean(ious[~tuned])}
            row["images"] = len(own)
            if zero_shot is not None:
                right = (first == truth) & (truth >= 0)
                row["forgotten"] = 100 * (right & (found != truth)).sum() / max(right.sum(), 1)
            rows.append(row)
        return pd.DataFrame(rows)


def class_ious(found: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Intersection over union of each class, over the pixels of all scenes [C]; NaN for one that is not in `truth`."""
    there, said = (np.bincount(each[each >= 0], minlength=classes) for each in (truth, found))
    both = np.bincount(truth[(truth == found) & (truth >= 0)], minlength=classes)
    return np.where(there > 0, both / np.maximum(there + said - both, 1), np.nan)
