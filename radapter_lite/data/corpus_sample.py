"""A sample of what PictoCLIP was pretrained on: icons and their names, on one sheet that ships."""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
from PIL import Image

from radapter_lite.assets import CORPUS_SAMPLE
from radapter_lite.data.images import ImageSet
from radapter_lite.data.readers import ArchiveReader

SIDE = 48  # pixels of an icon


@dataclass(frozen=True)
class SheetReader:
    """Reads icons by their number on the sheet, row by row."""

    path: Path

    def __call__(self, file: str) -> Image.Image:
        sheet = _sheet(self.path)
        y, x = divmod(int(file), sheet.width // SIDE)
        return sheet.crop((x * SIDE, y * SIDE, (x + 1) * SIDE, (y + 1) * SIDE))


@lru_cache(maxsize=1)
def _sheet(path: Path) -> Image.Image:
    return ArchiveReader(path)("icons.png")


def corpus_table(name: str) -> pd.DataFrame:
    """A table of the corpus: "icons" of the sample; of the whole, "sets" and their licences, or "tail".

    The tail says how many captions stand under so many icons: frequency, captions.
    """
    return pd.read_csv(io.BytesIO(ArchiveReader(CORPUS_SAMPLE).read_bytes(f"{name}.csv")), keep_default_na=False)


def load_corpus_sample() -> ImageSet:
    """The sampled icons, each with its caption, its set, how often the caption stands in the corpus (`frequency`), and
    whether it is one of the few that pretraining kept of PictoShift's classes (`kept`)."""
    icons = corpus_table("icons")
    icons["file"] = icons.index
    return ImageSet.from_table(icons.assign(split="train"), name="corpus sample", read=SheetReader(CORPUS_SAMPLE))
