"""Draw a sample of PictoCLIP's pretraining corpus, and pack it into the package's assets for notebook A1.

    python corpus_sample.py --iconify DIR

All pictograms that the corpus keeps of PictoShift's classes, and four times as many of the other icons, drawn by a
seed. The archive has the icons side by side on one sheet of 32 colours, `icons.csv` (a row an icon, in the sheet's
order), and two tables of the whole corpus: `sets.csv` (author, licence and icons of each set) and `tail.csv` (how many
captions stand under so many icons).
"""

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from build_benchmark import on_white
from PIL import Image
from render import SIZE as SIDE
from render import render
from sources import IconSet, icon_sets
from tqdm import tqdm

from radapter_lite.assets import CORPUS_SAMPLE, PICTOSHIFT
from radapter_lite.files import whole

CORPUS = Path(__file__).parent / "corpus.tsv.gz"
STAMP = (2026, 1, 1, 0, 0, 0)  # of every entry, so that the same icons give the same archive
ACROSS = 64  # icons in a row of the sheet
COLOURS = 32
OTHERS = 4  # icons of no PictoShift class for each that is: a fifth of a batch, as at the end of pretraining


def draw(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The whole corpus and the sample, a row an icon: set, icon, caption, frequency (of its caption), kept."""
    text = gzip.decompress(CORPUS.read_bytes()).decode()
    corpus = pd.read_csv(io.StringIO(text), sep="\t", names=["place", "caption"], keep_default_na=False, quoting=3)
    corpus[["set", "icon"]] = corpus.pop("place").str.split("/", n=1, expand=True).to_numpy()
    corpus["frequency"] = corpus["caption"].map(corpus["caption"].value_counts())
    with zipfile.ZipFile(PICTOSHIFT) as archive:
        classes = set(pd.read_csv(archive.open("pictoshift.csv"), keep_default_na=False)["class"])
    corpus["kept"] = corpus["caption"].isin(classes)
    kept = np.flatnonzero(corpus["kept"])
    others = np.random.default_rng(seed).choice(np.flatnonzero(~corpus["kept"]), OTHERS * len(kept), replace=False)
    return corpus, corpus.iloc[np.sort(np.concatenate([kept, others]))].reset_index(drop=True)


def sheet_of(sample: pd.DataFrame, sets: dict[str, IconSet]) -> bytes:
    """The icons in the order of their rows, side by side, as PNG."""
    sheet = Image.new("RGB", (ACROSS * SIDE, -(-len(sample) // ACROSS) * SIDE), "white")
    for place, row in enumerate(tqdm(sample.itertuples(), total=len(sample), desc="icons")):
        own = sets[row.set]
        icon = own.icons[row.icon]
        sides = [icon.get(side, size) for side, size in zip(("width", "height"), own.size, strict=True)]
        rgba = render(icon["body"], (icon.get("left", 0), icon.get("top", 0), *sides))
        pixels = on_white((rgba if own.colour else rgba[..., 3])[None])[0]
        sheet.paste(Image.fromarray(pixels), (place % ACROSS * SIDE, place // ACROSS * SIDE))
    png = io.BytesIO()
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(png, "PNG", optimize=True)
    return png.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iconify", type=Path, required=True, help="the unpacked @iconify/json package")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    corpus, sample = draw(args.seed)
    sets = {icon_set.prefix: icon_set for icon_set in icon_sets(args.iconify)}
    counts = corpus["set"].value_counts(sort=False).rename_axis("set").reset_index(name="icons")
    for column in ("title", "author", "licence"):
        counts[column] = [getattr(sets[prefix], column) for prefix in counts["set"]]
    tail = corpus.groupby("frequency")["caption"].nunique().reset_index(name="captions")
    tables = {
        "icons.csv": sample.rename(columns={"caption": "captions"})[["set", "icon", "captions", "frequency", "kept"]],
        "sets.csv": counts[["set", "title", "author", "licence", "icons"]],
        "tail.csv": tail,
    }
    with whole(CORPUS_SAMPLE) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, table in tables.items():
            archive.writestr(zipfile.ZipInfo(name, STAMP), table.to_csv(index=False), zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("icons.png", STAMP), sheet_of(sample, sets))
    print(f"{len(sample)} icons, {CORPUS_SAMPLE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
