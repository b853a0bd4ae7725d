"""A folder of images as an `ImageSet`: class/image, or domain/class/image."""

from pathlib import Path

import pandas as pd

from radapter_lite.data.images import ImageSet

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def load_folder(root: Path, seed: int, id_domain: str | None) -> ImageSet:
    if not root.is_dir():
        raise FileNotFoundError(
            f"There is no folder {root}; give one that holds a sub-folder of images for each class."
        )
    rows = [
        (file.relative_to(root).as_posix(), *place) for place, files in _class_folders(root) for file in files
    ]
    table = pd.DataFrame(rows, columns=["file", "domain", "class"])
    return ImageSet.from_table(table, root, id_domain=id_domain, seed=seed)


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
