"""Images with a class, a domain and a split: the embedded PictoShift, or images of the user's own.

    load_images()                          PictoShift: ID is "outline", five other styles are OOD
    load_images(id_domain="camera")        ID is photographs of those drawings, six clean styles are OOD
    load_images("photos", id_domain="web") a folder, one sub-folder a class, and a domain above it if there is one
    load_images("captions.csv")            a table of files beside it, with their classes or captions
    load_images("shards/{00..41}.tar")     WebDataset's shards, or a folder of them
    load_images("birds.parquet")           Parquet files, or a folder that Hugging Face's `save_to_disk` wrote
    ImageSet.from_table(table, "photos")   a DataFrame with the file and the class of each image

All give an `ImageSet`, and everything downstream takes one.
"""

from dataclasses import replace
from pathlib import Path

from radapter_lite.data.folders import Names, load_folder
from radapter_lite.data.images import ImageSet
from radapter_lite.data.pictoshift import load_pictoshift
from radapter_lite.data.readers import upright_rgb
from radapter_lite.files import StrPath

__all__ = ["ImageSet", "load_images", "upright_rgb"]


def load_images(
    source: StrPath = "pictoshift",
    *,
    id_domain: str | None = None,
    class_names: Names | None = None,
    seed: int = 0,
    severity: float | None = None,
    views: int | None = None,
    broken: str = "stop",
    workers: int = 0,
) -> ImageSet:
    """Load PictoShift, a folder of images laid out as class/image or domain/class/image, a table, shards or a data set.

    Folders named train, val and test above the classes or the domains, or in a domain, are its splits. Where there is
    no val, validation images are drawn from train; where there is no test, val is the test. OOD images are all test.
    A table is what `ImageSet.from_table` takes, in UTF-8; an image may have several captions in rows of their own. A
    shard's image has its class in .cls or its caption in .txt beside it, or either in .json; a data set has columns of
    images and of classes or captions, by their usual names. Both may say domain and split, and need extra "scale".

    Args:
        source: "pictoshift", the folder, the table, the shards or the data set.
        id_domain: the domain to tune on, for PictoShift also "camera"; "outline" or a folder's first if not given.
        class_names: for folders that carry codes, a dict of names by code, or a .json, .csv, .tsv or .txt file of codes
            and names, or of a name for each class folder in sorted order; classes keep the order of the codes.
        seed: of the division of a folder's ID images into splits that it does not have.
        severity: of "camera", how far its photographs are from the drawings, from 0 to 1; 0.7 if not given.
        views: of "camera", how many photographs there are of each design to train on; 4 if not given.
        broken, workers: see `ImageSet`.

    Raises:
        FileNotFoundError: for a folder, a table or a file of names that does not exist.
        ValueError: for what cannot be read or does not fit together; the sentence names it.
    """
    if (severity, views) != (None, None) and (source, id_domain) != ("pictoshift", "camera"):
        raise ValueError('severity and views are of PictoShift\'s photographs: give them with id_domain="camera" alone')
    if broken not in ("stop", "skip"):
        raise ValueError(f"broken images stop or skip, and do not {broken!r}")
    if source != "pictoshift":
        return replace(load_folder(Path(source), seed, id_domain, class_names), broken=broken, workers=workers)
    if class_names is not None:
        raise ValueError("PictoShift's classes have their names: give class_names with a folder of images")
    return replace(load_pictoshift(id_domain, severity, views), broken=broken, workers=workers)
