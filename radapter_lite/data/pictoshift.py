"""PictoShift, the embedded benchmark: everyday objects drawn in six styles, in one archive that ships.

In its camera setting the outline drawings are printed on something and photographed. A photograph is drawn from its
design and the number of its view alone, so it is the same whenever it is read. Its severity, from 0 (the drawing) to 1,
scales all at once: texture, paleness, perspective, light, blur and noise.
"""

import io
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from radapter_lite.assets import PICTOSHIFT as ARCHIVE
from radapter_lite.data.images import ImageSet
from radapter_lite.data.readers import archived, read_archived

SEVERITY = 0.7
VIEWS = 4  # photographs of a design, in training; one each in validation and test
SIDE, PLANE, PRINT = 96, 144, 84  # pixels of a photograph, of the ground it is taken of, and of the print on it
Rng = np.random.Generator


def load_pictoshift(id_domain: str | None, severity: float | None, views: int | None) -> ImageSet:
    if not ARCHIVE.is_file():
        raise FileNotFoundError(f"{ARCHIVE.name} is missing from the installation: install radapter-lite again")
    try:
        table = pd.read_csv(io.BytesIO(archived(ARCHIVE, "pictoshift.csv")), keep_default_na=False)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{ARCHIVE.name} is damaged ({error}): install radapter-lite again") from error
    if id_domain != "camera":
        read = partial(read_archived, ARCHIVE)
        return ImageSet.from_table(table, id_domain=id_domain or "outline", name="pictoshift", read=read)
    severity, views = SEVERITY if severity is None else severity, VIEWS if views is None else views
    if isinstance(severity, bool | str) or not 0 <= severity <= 1:
        raise ValueError(f"severity must lie in [0, 1], from the drawings to the hardest photographs, not {severity!r}")
    if type(views) is not int or views < 1:
        raise ValueError(f"views must be a whole number of 1 or more, not {views!r}")
    # The name tells settings apart where a checkpoint is resumed.
    name = "pictoshift" if severity == SEVERITY else f"pictoshift at severity {severity:g}"
    read = partial(read_photograph, ARCHIVE, severity)
    return ImageSet.from_table(with_photographs(table, views), id_domain="camera", name=name, read=read)


def read_photograph(archive: Path, severity: float, file: str) -> Image.Image:
    """The photograph camera/CLASS/DESIGN.VIEW.png of what is outline/CLASS/DESIGN.png; any other file as it is."""
    if not file.startswith("camera/"):
        return read_archived(archive, file)
    design, _, _ = file.removeprefix("camera/").removesuffix(".png").rpartition(".")
    drawing = read_archived(archive, f"outline/{design}.png")
    return photograph(drawing, np.random.default_rng(zlib.crc32(file.encode())), severity)


def with_photographs(table: pd.DataFrame, views: int) -> pd.DataFrame:
    """The table with photographs: of each outline design to train on so many views, and one of the others."""
    outline = table[table["domain"] == "outline"]
    rows = [outline[(outline["split"] == "train") | (view == 0)].assign(view=view) for view in range(views)]
    photographs = pd.concat(rows).assign(domain="camera")
    stem = photographs["file"].str.removeprefix("outline/").str.removesuffix(".png")
    photographs["file"] = "camera/" + stem + "." + photographs["view"].astype(str) + ".png"
    return pd.concat([photographs, table[table["split"] == "test"].assign(view=0)], ignore_index=True)


def photograph(drawing: Image.Image, rng: Rng, severity: float = SEVERITY) -> Image.Image:
    """A black drawing on white, printed on something and photographed: RGB, 96 x 96 pixels."""
    ground = MATERIALS[int(rng.integers(len(MATERIALS)))](rng)
    if rng.random() < 0.5:
        ground = _with_plate(ground, rng)
    ground = 1 + severity * (ground - 1)
    room = (PLANE - PRINT) // 2
    ink = 1 - np.asarray(drawing.convert("L").resize((PRINT, PRINT), Image.Resampling.BICUBIC), np.float32) / 255
    ink = np.pad(ink.clip(0, 1), room)
    colour = _ink_colour(ground[room:-room, room:-room].mean((0, 1)), rng, severity)
    worn = 1 - 0.8 * severity * (noise(rng, 12, 40) * 4 - 2.4).clip(0, 1)
    scene = _from_aside(np.dstack([ground, ink * worn]), rng, severity)
    seen, ink = scene[..., :3], scene[..., 3:]
    picture = (seen * (1 - ink) + colour * ink) * _light(rng, severity)[..., None]
    picture *= 1 + severity * rng.uniform(-0.12, 0.12, 3)  # white balance
    image = _to_image(picture).filter(ImageFilter.GaussianBlur(severity * rng.uniform(0.4, 1.9)))
    exposed = np.asarray(image, np.float32) / 255
    grain = rng.uniform(0.01, 0.09) * rng.standard_normal(exposed.shape) * np.sqrt(0.2 + exposed)
    return _to_image(exposed + severity * grain)


# --- what it is printed on: [144, 144, 3], from 0 to 1 ---


def paper(rng: Rng) -> np.ndarray:
    tint = np.array([1, rng.uniform(0.9, 1), rng.uniform(0.7, 1)]) * rng.uniform(0.7, 0.95)
    creases = noise(rng, 5, stretch=(1, 3)) - 0.5
    return _shade(tint, 0.12 * creases + 0.05 * (noise(rng, 90) - 0.5))


def cardboard(rng: Rng) -> np.ndarray:
    flutes = np.sin(np.arange(PLANE) * rng.uniform(0.5, 0.9))[:, None]
    grain = 0.2 * (noise(rng, 30, 144) - 0.5) + 0.03 * flutes
    return _shade(np.array([0.72, 0.55, 0.38]) * rng.uniform(0.75, 1.15), grain)


def wood(rng: Rng) -> np.ndarray:
    down = np.linspace(0, rng.uniform(3, 9), PLANE)[:, None] + 1.6 * noise(rng, 8, stretch=(1, 4))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * down)
    fibres = noise(rng, 144, stretch=(1, 12))
    planks = np.where(np.arange(PLANE) % int(rng.integers(45, 80)) < 2, -0.35, 0.0)[:, None]
    tone = np.array([(0.68, 0.46, 0.27), (0.45, 0.28, 0.17), (0.84, 0.68, 0.48)][int(rng.integers(3))])
    return _shade(tone, 0.35 * (rings - 0.5) + 0.3 * (fibres - 0.5) + planks)


def fabric(rng: Rng) -> np.ndarray:
    across = np.arange(PLANE) * rng.uniform(1.0, 1.6)
    weave = 0.5 * np.sin(across)[:, None] * np.sin(across)[None] + 0.5 * (noise(rng, 100) - 0.5)
    folds = noise(rng, 4, stretch=(1, 2)) - 0.5
    stripes = np.where(np.sin(across * 0.2)[None] > 0.3, 0.12, 0.0) * (rng.random() < 0.4)
    return _shade(rng.uniform(0.2, 0.85, 3), 0.3 * weave + 0.5 * folds + stripes)


def metal(rng: Rng) -> np.ndarray:
    brushed = noise(rng, 144, 144, stretch=(1, 24)) - 0.5
    gleam = np.cos(np.linspace(0, np.pi, PLANE) + rng.uniform(0, 6))[None] * 0.25
    scratches = (noise(rng, 70, stretch=(12, 1)) > 0.93) * 0.2
    return _shade(np.array([0.62, 0.64, 0.67]) * rng.uniform(0.7, 1.2), 0.3 * brushed + gleam + scratches)


def wall(rng: Rng) -> np.ndarray:
    tone = rng.uniform(0.55, 0.9, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0.4, 0.85))
    ground = _shade(tone, 0.35 * (noise(rng, 4, 12, 40, 100) - 0.5) * 2)
    if rng.random() < 0.4:  # bricks
        row = np.arange(PLANE) // 18
        across = (np.arange(PLANE)[None] + 20 * (row[:, None] % 2)) % 40
        joint = (np.arange(PLANE)[:, None] % 18 < 2) | (across < 2)
        ground = np.where(joint[..., None], 0.75, ground * np.array([1.0, 0.72, 0.62]))
    return ground


MATERIALS: tuple[Callable[[Rng], np.ndarray], ...] = (paper, cardboard, wood, fabric, metal, wall)


def _with_plate(ground: np.ndarray, rng: Rng) -> np.ndarray:
    """A sticker, label or sign on the ground, with its shadow: a plain rounded plate or a disc."""
    half = rng.uniform(44, 54)
    corner = 2.0 if rng.random() < 0.25 else rng.uniform(5, 12)  # the norm's exponent: a disc, or nearly a square
    y, x = np.mgrid[:PLANE, :PLANE] - PLANE / 2
    reach = (np.abs(x / half) ** corner + np.abs(y / half) ** corner) ** (1 / corner)
    plate = ((1.06 if corner > 2 else 1.3) - reach) * half
    shadow = np.roll(plate, rng.integers(1, 5, 2), (0, 1)).clip(-3, 0) / 3 + 1
    tone = np.ones(3) * rng.uniform(0.85, 1) if rng.random() < 0.5 else rng.uniform(0.05, 0.95, 3)
    ground = ground * (1 - 0.45 * shadow[..., None])
    cover = plate.clip(0, 1)[..., None]
    rim = ((plate > 2.5) & (plate < 5)) * rng.choice([-0.3, 0.0, 0.3])
    return ground * (1 - cover) + _shade(tone, rim + 0.06 * (noise(rng, 3, 80) - 0.5)) * cover


def noise(rng: Rng, *cells: int, stretch: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Smooth noise from 0 to 1 [144, 144]: random values on a grid of so many cells, or the mean of several grids."""
    total = np.zeros((PLANE, PLANE), np.float32)
    for number in cells:
        grid = rng.random((max(2, number // stretch[0]), max(2, number // stretch[1])), np.float32)
        total += np.asarray(Image.fromarray(grid).resize((PLANE, PLANE), Image.Resampling.BICUBIC))
    return (total / len(cells)).clip(0, 1)


def _shade(tone: np.ndarray, change: np.ndarray) -> np.ndarray:
    return (tone * (1 + change[..., None])).clip(0, 1)


# --- how it is seen ---


def _ink_colour(ground: np.ndarray, rng: Rng, severity: float) -> np.ndarray:
    """Dark on what is light and light on what is dark, and the paler the worse things are; black at severity 0."""
    colour = severity * rng.uniform(0, 0.3, 3) if ground.mean() > 0.5 else rng.uniform(0.8, 1, 3)
    return colour + severity * rng.uniform(0, 0.45) * (ground - colour)


def _from_aside(scene: np.ndarray, rng: Rng, severity: float) -> np.ndarray:
    """The plane [144, 144, K] as a camera that is held at a slant sees it [96, 96, K]."""
    target = SIDE * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    corners = target + (PLANE - SIDE) / 2
    turn = severity * rng.uniform(-0.3, 0.3)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    seen = (corners - PLANE / 2) @ rotation * (1 + severity * rng.uniform(-0.05, 0.25)) + PLANE / 2
    seen += severity * (rng.uniform(-6, 6, 2) + rng.uniform(-11, 11, (4, 2)))
    rows = []
    for (x, y), (u, v) in zip(target, seen, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    homography = np.linalg.solve(np.array(rows), seen.flatten()).tolist()
    how = ((SIDE, SIDE), Image.Transform.PERSPECTIVE, homography, Image.Resampling.BICUBIC)
    planes = map(Image.fromarray, scene.transpose(2, 0, 1).astype(np.float32))
    return np.dstack([np.asarray(plane.transform(*how)) for plane in planes]).clip(0, 1)


def _light(rng: Rng, severity: float) -> np.ndarray:
    """The light on each pixel [96, 96]: from one side, less in the corners, perhaps with the edge of a shadow."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE / 2) - 1
    angle = rng.uniform(0, 2 * np.pi)
    side = x * np.cos(angle) + y * np.sin(angle)
    light = 1 + rng.uniform(0, 0.35) * side - rng.uniform(0, 0.2) * (x**2 + y**2)
    if rng.random() < 0.4:
        angle = rng.uniform(0, 2 * np.pi)
        edge = x * np.cos(angle) + y * np.sin(angle) - rng.uniform(-0.5, 0.6)
        light -= 0.35 / (1 + np.exp(-edge * rng.uniform(5, 30)))
    return 1 + severity * (light * rng.uniform(0.7, 1.1) - 1)


def _to_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
