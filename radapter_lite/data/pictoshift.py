"""PictoShift, the embedded benchmark: everyday objects drawn in six styles, in one archive that ships."""

import io
import zipfile

import pandas as pd

from radapter_lite.assets import PICTOSHIFT as ARCHIVE
from radapter_lite.data.images import ImageSet
from radapter_lite.data.readers import ArchiveReader


def load_pictoshift(id_domain: str | None) -> ImageSet:
    if not ARCHIVE.is_file():
        raise FileNotFoundError(
            f"{ARCHIVE.name} is missing from the installation: install radapter-lite again"
        )
    read = ArchiveReader(ARCHIVE)
    try:
        table = pd.read_csv(io.BytesIO(read.read_bytes("pictoshift.csv")), keep_default_na=False)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{ARCHIVE.name} is damaged ({error}): install radapter-lite again") from error
    return ImageSet.from_table(table, id_domain=id_domain or "outline", name="pictoshift", read=read)
