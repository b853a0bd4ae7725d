"""What ships: PictoShift's files, licences and splits, PictoCLIP's size, and what its pretraining has not seen.

What the tests measure is written out here once more, rather than taken from the scripts that made the assets.
"""

import csv
import gzip
import io
import os
import re
import sys
import zipfile
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.tokenizer import default_bpe
from PIL import Image
from safetensors import safe_open

from radapter_lite.backbone import load_clip

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "radapter_lite" / "assets"
PRETRAIN = ROOT / "pretrain"
LICENCES = {
    "MIT",
    "Apache-2.0",
    "ISC",
    "BSD-3-Clause",
    "CC0-1.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "OFL-1.1",
    "Unlicense",
    "MPL-2.0",
}
COLUMNS = ["file", "class", "domain", "split", "caption", "captions", "set", "author", "licence"]
NEAR_DUPLICATE = 0.95

Row = dict[str, str]


@pytest.fixture(scope="module")
def archive():
    with zipfile.ZipFile(ASSETS / "pictoshift.zip") as opened:
        yield opened


@pytest.fixture(scope="module")
def table(archive) -> list[Row]:
    return list(csv.DictReader(io.StringIO(archive.read("pictoshift.csv").decode())))


@pytest.fixture(scope="module")
def corpus() -> dict[str, str]:
    """Caption of every icon that PictoCLIP was pretrained on, by set/icon."""
    lines = gzip.decompress((PRETRAIN / "corpus.tsv.gz").read_bytes()).decode().splitlines()
    return dict(line.split("\t") for line in lines)


@pytest.fixture(scope="module")
def family_of() -> dict[str, str]:
    sys.path.insert(0, str(PRETRAIN))
    try:
        from sources import FAMILY_OF
    finally:
        sys.path.remove(str(PRETRAIN))
    return FAMILY_OF


@pytest.fixture(scope="module")
def attribution() -> dict[str, dict]:
    """ATTRIBUTION.md's table: for each set its author, licence, and number of images and icons."""
    found = {}
    for line in (ROOT / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\| .+ \(`([\w-]+)`\) \| (.+) \| (\S+) \| (\d+) \| (\d+) \|", line):
            prefix, author, licence, images, icons = match.groups()
            found[prefix] = {"author": author, "licence": licence, "images": int(images), "icons": int(icons)}
    return found


def grey(pixels: np.ndarray) -> np.ndarray:
    """RGB (N, 48, 48, 3) -> the mean grey of every 3 x 3 pixels, as vectors (N, 256) of mean 0 and norm 1."""
    flat = pixels.astype(np.float32).reshape(len(pixels), 16, 3, 16, 3, 3).mean(axis=(2, 4, 5))
    vectors = flat.reshape(len(pixels), 256)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)


def read(archive: zipfile.ZipFile, rows: list[Row]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(row["file"])))) for row in rows])


# --- files and licences ---


def test_the_archive_is_small_and_whole(archive):
    assert (ASSETS / "pictoshift.zip").stat().st_size <= 25e6
    assert archive.testzip() is None


def test_the_table_and_the_files_are_the_same_images(archive, table):
    assert set(COLUMNS) <= table[0].keys()
    listed = [row["file"] for row in table]
    assert len(set(listed)) == len(listed)
    assert set(archive.namelist()) == {*listed, "pictoshift.csv"}
    for row in table:
        assert all(row[column] for column in COLUMNS), row
        folder, icon = row["file"].rsplit("/", 1)
        assert folder == f"{row['domain']}/{row['class']}"
        assert re.fullmatch(rf"{re.escape(row['set'])}--[\w.-]+\.png", icon), row["file"]
        assert row["split"] in ("train", "validation", "test")
        assert row["captions"].split(" | ")[0] == row["caption"]


def test_every_image_is_48_pixels_of_rgb(archive, table):
    for row in table:
        with Image.open(io.BytesIO(archive.read(row["file"]))) as image:  # reads the header alone
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (48, 48)), row["file"]


def test_all_licences_allow_use(table, attribution):
    assert {row["licence"] for row in table} <= LICENCES
    assert {entry["licence"] for entry in attribution.values()} <= LICENCES


def test_every_set_is_attributed(table, corpus, attribution):
    images = Counter(row["set"] for row in table)
    icons = Counter(icon.split("/")[0] for icon in corpus)
    assert {prefix: entry["images"] for prefix, entry in attribution.items() if entry["images"]} == images
    assert {prefix: entry["icons"] for prefix, entry in attribution.items() if entry["icons"]} == icons
    for row in table:
        entry = attribution[row["set"]]
        assert entry["licence"] == row["licence"] and row["author"] in entry["author"]


def test_emoji_have_several_captions(table):
    several = [len(row["captions"].split(" | ")) > 1 for row in table if row["domain"] == "emoji"]
    assert np.mean(several) > 0.8


# --- splits ---


def test_no_family_of_a_class_is_in_two_splits(table, family_of):
    splits = defaultdict(set)
    for row in table:
        splits[row["class"], family_of.get(row["set"], row["set"])].add(row["split"])
    assert not {key: found for key, found in splits.items() if len(found) > 1}


def test_no_near_duplicates_across_the_splits_of_a_class(archive, table):
    by_class = defaultdict(lambda: defaultdict(list))
    for row in table:
        if row["domain"] == "outline":
            by_class[row["class"]][row["split"]].append(row)
    for splits in by_class.values():
        vectors = {split: grey(read(archive, rows)) for split, rows in splits.items()}
        for one, other in combinations(splits, 2):
            alike = vectors[one] @ vectors[other].T
            i, j = np.unravel_index(alike.argmax(), alike.shape)
            assert alike.max() <= NEAR_DUPLICATE + 1e-4, (splits[one][i]["file"], splits[other][j]["file"])


# --- pretraining and benchmark ---


def icon_of(row: Row) -> str:
    return f"{row['set']}/{row['file'].rsplit('--', 1)[1].removesuffix('.png')}"


def test_no_benchmark_icon_was_pretrained_on(table, corpus):
    assert not {icon_of(row) for row in table} & corpus.keys()


def test_each_class_keeps_its_number_of_pictograms_in_pretraining(table, corpus):
    found = Counter(corpus.values())
    numbers = {row["class"]: int(row["pretraining_pictograms"]) for row in table}
    assert {name: found[name] for name in numbers} == numbers
    assert set(numbers.values()) == {2, 4, 8, 16, 32}


def test_no_family_draws_a_class_for_pretraining_and_benchmark(table, corpus, family_of):
    benchmark = {(row["class"], family_of.get(row["set"], row["set"])) for row in table}
    prefixes = ((icon.split("/")[0], caption) for icon, caption in corpus.items())
    assert not benchmark & {(caption, family_of.get(prefix, prefix)) for prefix, caption in prefixes}


def test_no_other_pretraining_icon_names_a_class(table, corpus):
    entries = tomllib.loads((PRETRAIN / "classes.toml").read_text(encoding="utf-8"))
    classes = {row["class"] for row in table}
    phrases = {phrase for name in classes for phrase in (name, *entries[name]["names"])}
    for caption in set(corpus.values()) - classes:
        words = caption.split()
        spans = {" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)}
        assert not spans & phrases, caption


def test_no_image_was_near_the_pretraining_when_both_were_made(table):
    assert max(float(row["nearest_pretraining"]) for row in table) <= NEAR_DUPLICATE


BUILD = Path(os.environ.get("PICTOSHIFT_BUILD", PRETRAIN / "build"))


@pytest.mark.slow
@pytest.mark.skipif(
    not (BUILD / "corpus.csv").exists(),
    reason="needs the rendered corpus: run pretrain/render.py and build_benchmark.py",
)
def test_no_pretraining_image_is_near_a_benchmark_image(archive, table, corpus):
    """The similarities themselves, from the rendered corpus; what they were is in `nearest_pretraining`."""
    benchmark = grey(read(archive, table))
    nearest = np.full(len(table), -1.0)
    places = defaultdict(list)
    with (BUILD / "corpus.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert f"{row['set']}/{row['icon']}" in corpus
            places[row["set"]].append(int(row["row"]))
    assert sum(map(len, places.values())) == len(corpus)
    for prefix, rows in places.items():
        with np.load(BUILD / "sets" / f"{prefix}.npz") as rendered:
            pixels = rendered["images"][rows]
        if pixels.ndim == 3:  # opacity of black ink
            pixels = np.repeat((255 - pixels)[..., None], 3, axis=3)
        else:
            opacity = pixels[..., 3:].astype(np.float32) / 255
            pixels = pixels[..., :3] * opacity + 255 * (1 - opacity)
        nearest = np.maximum(nearest, (benchmark @ grey(pixels).T).max(axis=1))
    # Colours were rounded to whole numbers when the images were made, and are not here.
    assert nearest.max() <= NEAR_DUPLICATE + 1e-3, table[nearest.argmax()]["file"]
    recorded = np.array([float(row["nearest_pretraining"]) for row in table])
    np.testing.assert_allclose(nearest, recorded, atol=2e-3)


# --- PictoCLIP ---


def test_the_weights_are_small_and_half_precise():
    file = ASSETS / "pictoclip.safetensors"
    assert file.stat().st_size <= 16e6
    with safe_open(file, "pt") as tensors:
        kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    assert kinds <= {"F16", "I64"}


def test_the_backbone_loads_and_tells_images_apart(archive, table):
    backbone = load_clip("picto")
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) <= 8e6
    rows = [row for row in table if row["split"] == "train"][:2]
    images = torch.stack([backbone.preprocess(Image.open(io.BytesIO(archive.read(r["file"])))) for r in rows])
    with torch.no_grad():
        features = backbone.model.encode_image(images, normalize=True)
    assert features.isfinite().all() and features[0] @ features[1] < 0.9999


def test_the_vocabulary_is_the_beginning_of_clips():
    ours = gzip.decompress((ASSETS / "pictoclip_bpe.txt.gz").read_bytes()).decode().rstrip("\n").split("\n")
    clips = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    assert ours[1:] == clips[1 : len(ours)] and len(ours) > 1000  # the first line is a heading
    backbone = load_clip("picto", pretrained="random")
    assert backbone.tokenizer.vocab_size == backbone.model.vocab_size == len(ours) - 1 + 2 * 256 + 2
    assert backbone.tokenizer(["an icon of a bell"]).shape == (1, 16)


# --- the sample of the pretraining corpus ---


@pytest.fixture(scope="module")
def sampled() -> dict[str, list[Row]]:
    """The tables that lie beside the sampled icons: icons, sets and tail."""
    with zipfile.ZipFile(ASSETS / "corpus_sample.zip") as opened:
        assert opened.testzip() is None
        names = ("icons", "sets", "tail")
        return {name: list(csv.DictReader(io.StringIO(opened.read(f"{name}.csv").decode()))) for name in names}


def test_every_sampled_icon_is_of_the_corpus_and_none_of_the_benchmark(sampled, corpus, table):
    frequency = Counter(corpus.values())
    icons = {f"{row['set']}/{row['icon']}": row for row in sampled["icons"]}
    assert len(icons) == len(sampled["icons"]) == 5240
    assert not icons.keys() & {icon_of(row) for row in table}
    for name, row in icons.items():
        assert corpus[name] == row["captions"] and frequency[row["captions"]] == int(row["frequency"])


def test_the_sample_holds_all_that_pretraining_kept_of_the_classes(sampled, corpus, table):
    classes = {row["class"] for row in table}
    kept = {f"{row['set']}/{row['icon']}" for row in sampled["icons"] if row["kept"] == "True"}
    assert kept == {icon for icon, caption in corpus.items() if caption in classes}
    assert 4 * len(kept) == len(sampled["icons"]) - len(kept)


def test_the_sampled_tables_tell_of_the_whole_corpus(sampled, corpus, attribution):
    for row in sampled["sets"]:
        entry = attribution[row["set"]]
        assert (int(row["icons"]), row["licence"]) == (entry["icons"], entry["licence"])
        assert row["author"] in entry["author"] and row["licence"] in LICENCES
    assert sum(int(row["icons"]) for row in sampled["sets"]) == len(corpus)
    frequencies = Counter(Counter(corpus.values()).values())
    assert {int(row["frequency"]): int(row["captions"]) for row in sampled["tail"]} == frequencies
    assert "corpus_sample.zip" in (ROOT / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_the_sheet_is_small_and_every_icon_is_drawn(sampled):
    assert (ASSETS / "corpus_sample.zip").stat().st_size <= 1.5e6
    with zipfile.ZipFile(ASSETS / "corpus_sample.zip") as opened:
        sheet = np.asarray(Image.open(io.BytesIO(opened.read("icons.png"))).convert("L"))
    assert sheet.shape[1] == 64 * 48
    icons = sheet.reshape(-1, 48, 64, 48).transpose(0, 2, 1, 3).reshape(-1, 48, 48)
    drawn = icons.min((1, 2)) < 250
    assert drawn[: len(sampled["icons"])].all() and not drawn[len(sampled["icons"]) :].any()
