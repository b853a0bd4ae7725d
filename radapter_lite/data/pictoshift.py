"""PictoShift, the embedded benchmark: everyday objects drawn in six styles, in one archive that ships."""

import io
import zipfile
from functools import partial

import pandas as pd

from radapter_lite.assets import PICTOSHIFT as ARCHIVE
from radapter_lite.data.camera import SEVERITY, VIEWS, read_photograph, with_photographs
from radapter_lite.data.images import ImageSet
from radapter_lite.data.readers import archived, read_archived


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
