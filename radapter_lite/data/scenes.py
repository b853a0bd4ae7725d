"""Scenes: drawings of one style printed on a textured ground, with exact masks; regions of them, and their crops.

A scene holds designs of one split, so that what a model was tuned on is in no scene that it is measured on. Regions are
what stands out from a median of its surroundings. Source: Liang et al. 2023 (OVSeg, arXiv 2210.04150) for the crops.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from radapter_lite.data.images import ImageSet
from radapter_lite.data.pictoshift import MATERIALS, PLANE

TEXTURE = 0.6  # how much of the ground's darkness and texture is left under the prints
INK, GAP = 0.12, 4  # the darkness from which a pixel is of a drawing, and pixels that an outline may be open for
LEVELS, JOINED = (0.6, 1.0), (1, 3)  # proposals at these shares of Otsu's threshold, joined over so many pixels
SHARE, SAME = (0.002, 0.8), 0.9  # of the picture, that a proposal may be; above this IoU two proposals are one
MARGIN, WHITE = 0.2, (255, 255, 255)  # a share of a region's longer side, around it; and what its ground is filled with


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of several objects, and where exactly each is."""

    image: np.ndarray  # RGB, uint8 [H, W, 3]
    objects: np.ndarray  # the pixels of each, bool [K, H, W]; none is of two
    labels: np.ndarray  # the class of each, by number [K]
    files: tuple[str, ...]  # their designs
    domain: str
    split: str

    @property
    def mask(self) -> np.ndarray:
        """The class of each pixel, by number, and -1 where the ground is [H, W]."""
        return np.where(self.objects.any(0), self.labels[self.objects.argmax(0)], -1)


def draw_scenes(images: ImageSet, count: int, seed: int = 0) -> list[Scene]:
    """`count` scenes [144, 144] of every domain, ID first, and split: three or four drawings each, made on white.

    All designs are drawn once before one is drawn again. Raises ValueError for a count below 1, and for photographs.
    """
    if type(count) is not int or count < 1:
        raise ValueError(f"count must be a whole number of 1 or more scenes, not {count!r}")
    if "camera" in images.domains:
        raise ValueError("scenes are made of drawings on white, not of camera's photographs: choose other domains")
    found, labels, files = [], images.labels.numpy(), images.table["file"].to_numpy()
    groups = images.table.groupby(["domain", "split"], sort=False).indices
    for (domain, split), rows in sorted(groups.items(), key=lambda group: images.domains.index(group[0][0])):
        key = [seed, zlib.crc32(f"{domain}/{split}".encode())]
        order, waiting = np.random.default_rng(key), np.array([], int)
        for number in range(count):
            rng = np.random.default_rng([*key, number])
            if len(waiting) < 4:
                waiting = np.append(waiting, order.permutation(rows))
            own, waiting = np.split(waiting, [rng.integers(3, 5)])
            image, objects = _compose([images.image(row) for row in own], rng)
            found.append(Scene(image, objects, labels[own], tuple(files[own]), str(domain), str(split)))
    return found


def _compose(drawings: list[Image.Image], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Drawings in the four cells that a cross makes of the ground, and masks of what their ink covers or encloses."""
    from scipy.ndimage import binary_closing, binary_fill_holes

    picture = 1 - TEXTURE * (1 - MATERIALS[int(rng.integers(len(MATERIALS)))](rng))
    objects = np.zeros((len(drawings), PLANE, PLANE), bool)
    across, down = rng.integers(PLANE * 3 // 8, PLANE * 5 // 8, 2)
    corners = ((0, 0, across, down), (across, 0, PLANE, down), (0, down, across, PLANE), (across, down, PLANE, PLANE))
    for own, drawing, cell in zip(objects, drawings, rng.permutation(4), strict=False):
        left, top, right, bottom = corners[cell]
        side = int(rng.uniform(0.6, 0.92) * min(right - left, bottom - top))
        x, y = int(rng.integers(left, right - side + 1)), int(rng.integers(top, bottom - side + 1))
        place = np.s_[y : y + side, x : x + side]
        ink = np.asarray(drawing.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
        picture[place] *= ink
        inked = np.pad(1 - ink.min(2) > INK, GAP)  # closing takes what is outside for ground
        own[place] = binary_fill_holes(binary_closing(inked, np.ones((GAP + 1, GAP + 1))))[GAP:-GAP, GAP:-GAP]
    return (picture.clip(0, 1) * 255).round().astype(np.uint8), objects


def proposals(image: np.ndarray) -> np.ndarray:
    """Regions that may be objects, whatever of, of a picture [H, W, 3], the largest first: bool [P, H, W].

    The picture is looked at with 144 pixels on its longer side. Where nothing stands out, it is the one region itself.
    """
    from scipy.ndimage import binary_fill_holes as fill
    from scipy.ndimage import median_filter
    from skimage import filters, measure, morphology

    small = ImageOps.contain(whole := Image.fromarray(image), (PLANE, PLANE))
    coarse = small.resize((max(1, small.width // 3), max(1, small.height // 3)), Image.Resampling.BOX)
    window = max(1, max(coarse.size) * 3 // 7)
    ground = Image.fromarray(median_filter(np.asarray(coarse), (window, window, 1))).resize(small.size)
    contrast = np.abs(np.asarray(small, int) - np.asarray(ground, int)).max(2)
    found: list[np.ndarray] = []
    for level in LEVELS:
        out = contrast > level * filters.threshold_otsu(contrast)
        for disk in map(morphology.disk, JOINED):
            parts = measure.label(morphology.dilation(out, disk))
            found += [fill(morphology.erosion(fill(parts == k), disk)) for k in range(1, parts.max() + 1)]
    kept: list[np.ndarray] = []
    for region in sorted(found, key=np.sum, reverse=True):
        if SHARE[0] < region.mean() < SHARE[1] and all(iou(region, other) <= SAME for other in kept):
            kept.append(region)
    sized = [np.asarray(Image.fromarray(np.uint8(region) * 255).resize(whole.size)) > 127 for region in kept]
    return np.stack([region for region in sized if region.any()] or [np.ones(image.shape[:2], bool)])


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks [H, W]; 0 where both are empty."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def crop(image: np.ndarray, region: np.ndarray, fill: tuple[int, int, int] | None = WHITE) -> Image.Image:
    """The square around a region [H, W] of a picture [H, W, 3], with all else in one colour; None leaves the ground.

    Raises ValueError for a region of another size than the picture, or without a pixel.
    """
    if region.shape != image.shape[:2]:
        raise ValueError(f"the mask has {region.shape} pixels and the picture {image.shape[:2]}: give one of its size")
    if (box := Image.fromarray(region).getbbox()) is None:
        raise ValueError("the mask is empty: give one with a pixel of the object at least")
    left, top, right, bottom = box
    filled = Image.fromarray(image if fill is None else np.where(region[..., None], image, np.array(fill, np.uint8)))
    side = max(right - left, bottom - top)
    square = Image.new("RGB", (side + 2 * max(1, round(MARGIN * side)),) * 2, fill or WHITE)
    square.paste(filled, ((square.width - left - right) // 2, (square.width - top - bottom) // 2))
    return square
