"""Pack PictoShift into the package's assets, and write ATTRIBUTION.md and the contact sheets.

    python pack_benchmark.py --iconify DIR --emojibase DIR --build BUILD

The archive has an image folder's layout, `domain/class/set--icon.png`, and a table `pictoshift.csv` beside them.
"""

import argparse
import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from names import emoji_captions
from PIL import Image, ImageDraw
from sources import EMOJI_SETS, icon_sets

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "radapter_lite" / "assets"
DOMAINS = ["outline", "solid", "color", "emoji", "sketch", "pixel"]
STAMP = (2026, 1, 1, 0, 0, 0)  # of every entry, so that the same images give the same archive


def table_of(args: argparse.Namespace) -> pd.DataFrame:
    """The archive's table: a row an image, `captions` separated by " | ", the class's own first."""
    sets = {icon_set.prefix: icon_set for icon_set in icon_sets(args.iconify)}
    emoji = emoji_captions(args.emojibase)
    table = pd.read_csv(args.build / "benchmark.csv", keep_default_na=False)
    counts = pd.read_csv(args.build / "concept_counts.csv").set_index("class")["pretraining_pictograms"]
    table["file"] = table["domain"] + "/" + table["class"] + "/" + table["set"] + "--" + table["icon"] + ".png"
    table["captions"] = [
        " | ".join(dict.fromkeys([caption, *(emoji.get(caption, []) if prefix in EMOJI_SETS else [])]))
        for prefix, caption in zip(table["set"], table["caption"], strict=True)
    ]
    table["author"] = table["set"].map({prefix: icon_set.author for prefix, icon_set in sets.items()})
    table["licence"] = table["set"].map({prefix: icon_set.licence for prefix, icon_set in sets.items()})
    table["pretraining_pictograms"] = table["class"].map(counts)
    columns = [
        "file",
        "class",
        "domain",
        "split",
        "caption",
        "captions",
        "set",
        "author",
        "licence",
        "pretraining_pictograms",
        "nearest_pretraining",
    ]
    return table[columns]


def write_archive(table: pd.DataFrame, images: np.ndarray) -> None:
    order = np.lexsort((table["file"], table["domain"].map(DOMAINS.index)))
    target = ASSETS / "pictoshift.zip"
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        csv = table.iloc[order].to_csv(index=False)
        archive.writestr(zipfile.ZipInfo("pictoshift.csv", STAMP), csv, zipfile.ZIP_DEFLATED)
        for row in order:
            buffer = io.BytesIO()
            Image.fromarray(images[row]).save(buffer, "PNG", optimize=True)
            archive.writestr(zipfile.ZipInfo(table["file"].iloc[row], STAMP), buffer.getvalue())
    os.replace(partial, target)
    print(f"{len(table)} images, {target.stat().st_size / 1e6:.1f} MB")


def write_corpus_list(args: argparse.Namespace) -> None:
    """Every icon PictoCLIP was pretrained on, as set/icon and caption: evidence of what it has not seen."""
    corpus = pd.read_csv(args.build / "corpus.csv", keep_default_na=False)
    lines = (corpus["set"] + "/" + corpus["icon"] + "\t" + corpus["caption"]).sort_values()
    partial = ROOT / "pretrain" / "corpus.partial"
    with partial.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
        packed.write(("\n".join(lines) + "\n").encode())
    os.replace(partial, ROOT / "pretrain" / "corpus.tsv.gz")


def write_contact_sheets(table: pd.DataFrame, images: np.ndarray) -> None:
    """One page a domain, a row for each class it has, up to 24 images each; short rows stand side by side."""
    folder = ROOT / "figures" / "contact_sheets"
    folder.mkdir(parents=True, exist_ok=True)
    for domain in DOMAINS:
        found = table.assign(row=np.arange(len(table)))[table["domain"] == domain].groupby("class")["row"]
        rows = [(label, own.to_numpy()[:24]) for label, own in found]
        across = 130 + 50 * max(len(members) for _, members in rows)
        tall = -(-len(rows) // max(1, 1330 // across))  # rows of a block
        page = Image.new("RGB", (across * -(-len(rows) // tall), 50 * tall), "white")
        draw = ImageDraw.Draw(page)
        for place, (label, members) in enumerate(rows):
            left, top = across * (place // tall), 50 * (place % tall)
            draw.text((left + 6, top + 18), label, fill="black")
            for k, member in enumerate(members):
                page.paste(Image.fromarray(images[member]), (left + 130 + 50 * k, top))
        page.quantize(64).save(folder / f"{domain}.png", optimize=True)


def write_attribution(args: argparse.Namespace, table: pd.DataFrame) -> None:
    corpus = pd.read_csv(args.build / "corpus.csv", keep_default_na=False)
    in_benchmark, in_corpus = table["set"].value_counts(), corpus["set"].value_counts()
    lines = [
        "# Attribution",
        "",
        "PictoShift's images are drawn from the icon sets below, and PictoCLIP's weights were pretrained on them. "
        "All came from the npm package `@iconify/json`; the captions of emoji come from `emojibase-data` (MIT, "
        "Miles Johnson). The byte-pair vocabulary is the beginning of OpenAI CLIP's (MIT). Icons were rendered to "
        "48 x 48 pixels, monochrome ones in black on white. PictoShift's camera setting draws them anew, as if printed "
        "and photographed; nothing else was changed. A sample of the pretraining icons ships in "
        "`radapter_lite/assets/corpus_sample.zip`, in 32 colours. "
        "The symbols of notebook 10 are drawn from DejaVu Sans and STIX, "
        "typefaces that come with matplotlib under licences of their own; this kit ships their names alone. "
        "This page is generated by `pretrain/pack_benchmark.py`.",
        "",
        "| set | author | licence | images in PictoShift | icons in pretraining |",
        "|---|---|---|---|---|",
    ]
    for icon_set in icon_sets(args.iconify):
        counts = in_benchmark.get(icon_set.prefix, 0), in_corpus.get(icon_set.prefix, 0)
        if any(counts):
            author = f"[{icon_set.author}]({icon_set.url})" if icon_set.url else icon_set.author
            cells = [f"{icon_set.title} (`{icon_set.prefix}`)", author, icon_set.licence, *map(str, counts)]
            lines.append(f"| {' | '.join(cells)} |")
    (ROOT / "ATTRIBUTION.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iconify", type=Path, required=True, help="the unpacked @iconify/json package")
    parser.add_argument("--emojibase", type=Path, required=True, help="the unpacked emojibase-data package")
    parser.add_argument("--build", type=Path, default=Path("build"), help="where build_benchmark.py left its files")
    args = parser.parse_args()
    table, images = table_of(args), np.load(args.build / "benchmark.npy")
    write_archive(table, images)
    write_corpus_list(args)
    write_contact_sheets(table, images)
    write_attribution(args, table)


if __name__ == "__main__":
    main()
