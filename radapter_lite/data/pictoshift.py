"""PictoShift, the embedded benchmark: everyday objects drawn in six styles, in one archive that ships."""

import io
import zipfile

import pandas as pd
from PIL import Image

from radapter_lite.assets import PICTOSHIFT as ARCHIVE
from radapter_lite.data.images import ImageSet


def load_pictoshift() -> ImageSet:
    if not ARCHIVE.is_file():
        raise FileNotFoundError(
            f"{ARCHIVE.name} is missing from the installation: install radapter-lite again"
        )
    try:
        archive = zipfile.ZipFile(ARCHIVE)
        table = pd.read_csv(io.BytesIO(archive.read("pictoshift.csv")), keep_default_na=False)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{ARCHIVE.name} is damaged ({error}): install radapter-lite again") from error

    def read(file: str) -> Image.Image:
        return Image.open(io.BytesIO(archive.read(file))).convert("RGB")

    return ImageSet(table, sorted(table["class"].unique()), "outline", "pictoshift", read)
