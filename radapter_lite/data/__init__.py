"""Images with a class, a domain and a split: the embedded PictoShift, or a folder of the user's own.

    load_images()                          PictoShift: ID is "outline", five other styles are OOD
    load_images("photos", id_domain="web") a folder, one sub-folder a class, and a domain above it if there is one

Both give an `ImageSet`, and everything downstream takes one.
"""

import os
from dataclasses import replace
from pathlib import Path

from radapter_lite.data.folders import load_folder
from radapter_lite.data.images import ImageSet, upright_rgb
from radapter_lite.data.pictoshift import load_pictoshift

__all__ = ["ImageSet", "load_images", "upright_rgb"]


def load_images(
    source: str | os.PathLike[str] = "pictoshift", *, id_domain: str | None = None, seed: int = 0
) -> ImageSet:
    """Load PictoShift, or a folder of images laid out as class/image or domain/class/image.

    Args:
        source: "pictoshift", or the folder.
        id_domain: the domain to tune on; "outline" for PictoShift, the first one for a folder.
        seed: of a folder's division of its ID images into train, validation and test (OOD images are all test).

    Raises:
        FileNotFoundError: for a folder that does not exist.
        ValueError: for an empty class, a mixed layout, an unknown domain; the sentence names it.
    """
    images = load_pictoshift() if source == "pictoshift" else load_folder(Path(source), seed, id_domain)
    domain = id_domain or images.id_domain
    if domain not in set(images.table["domain"]):
        raise ValueError(f"{images.name} has no domain {domain!r}; it has {', '.join(images.domains)}")
    return replace(images, id_domain=domain)
