"""Images with a class, a domain and a split: the embedded PictoShift, or images of the user's own.

    load_images()                          PictoShift: ID is "outline", five other styles are OOD
    load_images("photos", id_domain="web") a folder, one sub-folder a class, and a domain above it if there is one
    ImageSet.from_table(table, "photos")   a DataFrame with the file and the class of each image

All give an `ImageSet`, and everything downstream takes one.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from radapter_lite.data.folders import load_folder
from radapter_lite.data.images import ImageSet
from radapter_lite.data.pictoshift import load_pictoshift
from radapter_lite.data.readers import upright_rgb

__all__ = ["ImageSet", "load_images", "upright_rgb"]


def load_images(
    source: str | os.PathLike[str] = "pictoshift",
    *,
    id_domain: str | None = None,
    class_names: Mapping[str, str] | str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> ImageSet:
    """Load PictoShift, or a folder of images laid out as class/image or domain/class/image.

    Folders named train, val and test above the classes or the domains, or in a domain, are its splits. Where there is
    no val, validation images are drawn from train; where there is no test, val is the test. OOD images are all test.

    Args:
        source: "pictoshift", or the folder.
        id_domain: the domain to tune on; "outline" for PictoShift, the first one for a folder.
        class_names: for folders that carry codes, a dict of names by code, or a .json, .csv, .tsv or .txt file of codes
            and names, or of a name for each class folder in sorted order; classes keep the order of the codes.
        seed: of the division of a folder's ID images into splits that it does not have.

    Raises:
        FileNotFoundError: for a folder or a file of names that does not exist.
        ValueError: for an empty class, a mixed layout, an unknown domain, a class without a name, a name that is not
            UTF-8; the sentence names it.
    """
    if source != "pictoshift":
        return load_folder(Path(source), seed, id_domain, class_names)
    if class_names is not None:
        raise ValueError("PictoShift's classes have their names: give class_names with a folder of images")
    return load_pictoshift(id_domain)
