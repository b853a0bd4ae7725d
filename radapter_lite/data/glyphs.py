"""A second set of classes, none of them PictoShift's: Unicode's symbols as matplotlib's own typefaces draw them."""

import csv

import pandas as pd
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, ImageOps

from radapter_lite.assets import GLYPHS
from radapter_lite.data.images import ImageSet

FACES = ("DejaVuSans", "STIXGeneral")  # drawn by different hands
SIZE, MARGIN = 48, 4  # pixels, as PictoShift's icons
_FONT = f"{get_data_path()}/fonts/ttf/{{}}.ttf"


def load_glyphs() -> ImageSet:
    """Some 190 images of 95 classes, all for testing; classes are Unicode's names without "black" and "white"."""
    named = pd.read_csv(GLYPHS, sep="\t", quoting=csv.QUOTE_NONE).to_numpy()
    drawn = {face: FT2Font(_FONT.format(face)).get_charmap() for face in FACES}
    rows = [(f"{f}/{c}", name) for f in FACES for name, own in named for c in own if ord(c) in drawn[f]]
    table = pd.DataFrame(rows, columns=["file", "class"]).assign(domain="glyphs", split="test")
    return ImageSet.from_table(table, name="glyphs", read=read_glyph)


def read_glyph(file: str) -> Image.Image:
    """A typeface's character, as "DejaVuSans/☃", dark on white and as large as PictoShift's icons."""
    face, character = file.split("/")
    page, font = Image.new("L", (16 * SIZE, 16 * SIZE)), ImageFont.truetype(_FONT.format(face), 4 * SIZE)
    ImageDraw.Draw(page).text((4 * SIZE, 4 * SIZE), character, font=font, fill=255)
    found = ImageOps.pad(page.crop(page.getbbox()), (SIZE - 2 * MARGIN,) * 2, Image.Resampling.LANCZOS)
    return ImageOps.invert(ImageOps.expand(found, MARGIN)).convert("RGB")
