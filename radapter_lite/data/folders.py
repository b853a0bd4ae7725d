"""A folder of images as an `ImageSet`: class/image, or domain/class/image."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from radapter_lite.data.images import ImageSet, upright_rgb

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# How a folder's ID images are divided, class by class.
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.3


def load_folder(root: Path, seed: int, id_domain: str | None) -> ImageSet:
    if not root.is_dir():
        raise FileNotFoundError(
            f"There is no folder {root}; give one that holds a sub-folder of images for each class."
        )
    rows = [
        (file.relative_to(root).as_posix(), *place) for place, files in _class_folders(root) for file in files
    ]
    table = pd.DataFrame(rows, columns=["file", "domain", "class"])
    first = id_domain or table["domain"].iloc[0]
    table["split"] = "test"
    rng = np.random.default_rng(seed)
    too_small = True
    for _, members in table[table["domain"] == first].groupby("class"):
        order = rng.permutation(members.index)
        # Every class with 3 images or more has at least one in each split.
        n_test = max(int(len(order) * TEST_SHARE), len(order) > 2)
        n_validation = max(int(len(order) * VALIDATION_SHARE), len(order) > 2)
        table.loc[order[n_test + n_validation :], "split"] = "train"
        table.loc[order[n_test : n_test + n_validation], "split"] = "validation"
        too_small &= not n_test
    classes = sorted(table["class"].unique())
    return ImageSet(
        table, classes, first, root.resolve().name, lambda file: _read_file(root / file), too_small
    )


def _class_folders(root: Path) -> list[tuple[tuple[str, str], list[Path]]]:
    """((domain, class), image files) for each class folder of either layout."""
    tops = _folders(root)
    if not tops:
        raise ValueError(
            f"{root} has no sub-folders; put each class's images into a sub-folder named after it."
        )
    with_domains = [bool(_folders(top)) for top in tops]
    if any(with_domains) and not all(with_domains):
        odd = tops[with_domains.index(False)]
        raise ValueError(
            f"{odd} holds images while other sub-folders of {root} hold folders; use class/image or "
            f"domain/class/image throughout."
        )
    found = []
    for domain in tops if all(with_domains) else [root]:
        for folder in _folders(domain):
            files = sorted(
                file
                for file in folder.iterdir()
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
            )
            if not files:
                raise ValueError(
                    f"The class folder {folder} holds no image; add images or remove the folder."
                )
            found.append(((domain.name if domain != root else "images", _class_name(folder.name)), files))
    return found


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _class_name(folder: str) -> str:
    return folder.replace("_", " ").replace("-", " ")


def _read_file(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return upright_rgb(image)
    except Exception as error:  # what is no image fails when it is opened, and decoders fail in many ways
        raise ValueError(f"{file} is no readable image ({error}); repair or remove it.") from error
