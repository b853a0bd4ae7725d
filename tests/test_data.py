"""PictoShift and folders of one's own: what is in them, how they are divided, and what is refused."""

import gc
import json
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from radapter_lite.data import ImageSet, load_images
from radapter_lite.data import pictoshift as pictoshift_module
from radapter_lite.data.glyphs import load_glyphs
from radapter_lite.evaluation import evaluate

DOMAINS = {"outline", "solid", "color", "emoji", "sketch", "pixel"}


@pytest.fixture(scope="module")
def pictoshift():
    return load_images()


def files(images):
    return set(images.table["file"])


# --- PictoShift ---


def test_pictoshift_has_the_images_it_promises(pictoshift):
    assert pictoshift.name == "pictoshift" and pictoshift.id_domain == "outline"
    assert set(pictoshift.domains) == DOMAINS and pictoshift.domains[0] == "outline"
    assert set(pictoshift.ood_domains) == DOMAINS - {"outline"}
    assert len(pictoshift.classes) >= 80 and pictoshift.classes == sorted(pictoshift.classes)
    table = pictoshift.table
    outline = table[table["domain"] == "outline"].groupby(["class", "split"]).size().unstack(fill_value=0)
    assert len(outline) == len(pictoshift.classes)
    for split, least in (("train", 16), ("validation", 4), ("test", 8)):
        assert outline[split].min() >= least, outline[split].idxmin()
    assert set(table.loc[table["domain"] != "outline", "split"]) == {"test"}
    assert not table.isna().any(axis=None) and not (table["class"] == "").any()


def test_counts_add_up(pictoshift):
    counts = pictoshift.counts().set_index(["domain", "split"])
    assert counts["images"].sum() == len(pictoshift)
    assert counts.loc[("outline", "train"), "classes"] == len(pictoshift.classes)
    for domain, least in (("solid", 70), ("emoji", 70), ("color", 1), ("sketch", 1), ("pixel", 1)):
        part = pictoshift.select(domain=domain)
        assert counts.loc[(domain, "test"), "images"] == len(part) >= 40
        assert counts.loc[(domain, "test"), "classes"] == part.table["class"].nunique() >= least


def test_pictoshifts_images_are_48_pixels_of_rgb(pictoshift):
    for row in range(0, len(pictoshift), 500):
        image = pictoshift.image(row)
        assert image.mode == "RGB" and image.size == (48, 48) and np.ptp(np.asarray(image)) > 0


def test_labels_are_the_places_of_the_classes(pictoshift):
    part = pictoshift.select(domain="pixel")
    assert part.classes == pictoshift.classes
    assert [part.classes[label] for label in part.labels] == part.table["class"].tolist()


def test_selections_keep_what_was_asked_for(pictoshift):
    chosen = pictoshift.select(domain="solid", split="test", classes=["key", "bell"])
    whole = pictoshift.table
    expected = whole[(whole["domain"] == "solid") & whole["class"].isin(["key", "bell"])]
    assert chosen.table["file"].tolist() == expected["file"].tolist() and len(chosen)
    assert len(pictoshift.select()) == len(pictoshift)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (dict(domain="photo"), "no images with domain=photo.* it has .*outline test: .*solid test: "),
        (dict(domain="solid", split="train"), "domain=solid, split=train"),
        (dict(classes=["unicorn"]), r"classes=\['unicorn'\]"),
    ],
)
def test_selecting_nothing_is_refused(pictoshift, wanted, sentence):
    with pytest.raises(ValueError, match=sentence):
        pictoshift.select(**wanted)


def test_few_shots_are_balanced_nested_and_seeded(pictoshift):
    draws = {shots: pictoshift.few_shot(shots, seed=3) for shots in (1, 2, 4, 8, 16)}
    for shots, draw in draws.items():
        assert set(draw.table["class"].value_counts()) == {shots} and len(draw) == shots * len(draw.classes)
        assert set(draw.table["domain"]) == {"outline"} and set(draw.table["split"]) == {"train"}
    for fewer, more in ((1, 2), (2, 4), (4, 8), (8, 16)):
        assert files(draws[fewer]) < files(draws[more])
    assert files(pictoshift.few_shot(4, seed=3)) == files(draws[4])
    assert files(pictoshift.few_shot(4, seed=4)) != files(draws[4])


@pytest.mark.parametrize("shots", [0, -1, 1.5, True])
def test_shots_are_counted(pictoshift, shots):
    with pytest.raises(ValueError, match="shots must be a whole number of 1 or more"):
        pictoshift.few_shot(shots)


def test_a_domain_without_training_images_has_no_few_shots():
    with pytest.raises(ValueError, match="no training images in its ID domain 'solid'"):
        load_images(id_domain="solid").few_shot(1)


def test_a_damaged_installation_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pictoshift_module, "ARCHIVE", tmp_path / "pictoshift.zip")
    with pytest.raises(FileNotFoundError, match="pictoshift.zip is missing"):
        load_images()
    (tmp_path / "pictoshift.zip").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match="pictoshift.zip is damaged .*install radapter-lite again"):
        load_images()


# --- folders ---


@pytest.mark.parametrize("domains", [(), ("photo", "drawing")])
def test_a_folder_works_as_pictoshift_does(tmp_path, domains):
    images = load_images(make_folder(tmp_path / "mine", domains, images=10), id_domain=(domains or [None])[0])
    assert images.name == "mine" and images.classes == ["dark blue", "green", "red"]
    assert images.domains == list(domains or ["images"])
    counts = images.table[images.table["domain"] == images.id_domain].groupby(["class", "split"]).size()
    assert counts.unstack().to_dict("index") == dict.fromkeys(images.classes, {"test": 3, "train": 6, "validation": 1})
    assert set(images.table.loc[images.table["domain"] != images.id_domain, "split"]) <= {"test"}
    few = images.few_shot(4)
    assert len(few) == 12 and files(images.few_shot(2)) < files(few) < files(images.select(split="train"))
    result = evaluate(make_backbone(), images.select(split="test"))
    assert result["domain"].tolist() == images.domains
    assert result["images"].tolist() == ([9, 30] if domains else [9])


def test_a_folder_is_divided_by_the_seed(tmp_path):
    folder = make_folder(tmp_path)
    train = [files(load_images(str(folder), seed=seed).select(split="train")) for seed in (0, 0, 1)]
    assert train[0] == train[1] != train[2]


def test_the_first_domain_is_the_one_to_tune_on(tmp_path):
    folder = make_folder(tmp_path, ("b", "a"))
    assert load_images(folder).id_domain == "a"
    assert load_images(folder, id_domain="b").domains == ["b", "a"]


def test_small_classes_have_an_image_in_every_split(tmp_path):
    images = load_images(make_folder(tmp_path, images=3))
    assert set(images.table.groupby(["class", "split"]).size()) == {1}


@pytest.mark.parametrize("domains", [(), ("photo", "web")])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_classes_too_small_for_three_splits_are_said_so(tmp_path, domains, split):
    images = load_images(make_folder(tmp_path, domains, images=2))
    with pytest.raises(ValueError, match="; each class needs at least 3 ID images, one for each split$"):
        images.few_shot(1).select(domain=images.id_domain, split=split)


def test_other_empty_selections_have_other_causes(tmp_path):
    few = load_images(make_folder(tmp_path / "large", images=3)).few_shot(1)
    small = load_images(make_folder(tmp_path / "small", ("photo", "web"), images=2))
    for images, wanted in ((few, dict(split="test")), (small, dict(domain="web", split="validation"))):
        with pytest.raises(ValueError, match="has no images with .* it has [a-z0-9 :,]*$"):
            images.select(**wanted)


def test_files_are_named_by_their_place_in_the_folder(tmp_path, monkeypatch):
    make_folder(tmp_path / "shapes", ("web",), images=1)
    monkeypatch.chdir(tmp_path)
    for folder in ("shapes", "./shapes/", tmp_path / "shapes"):
        images = load_images(folder)
        assert images.table["file"].tolist() == [f"web/{name}/0.png" for name in ("dark-blue", "green", "red")]
        assert images.image(0).size == (40, 36)


@pytest.mark.parametrize("source", ["pictoshift", "folder"])
def test_unknown_domains_are_refused(tmp_path, source):
    folder = source if source == "pictoshift" else make_folder(tmp_path, ("web", "shop"))
    there = "outline, .*pixel" if source == "pictoshift" else "shop, web"
    with pytest.raises(ValueError, match=f"has no domain 'moon'; it has {there}"):
        load_images(folder, id_domain="moon")


def test_a_missing_folder_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere; give one that holds"):
        load_images(tmp_path / "nowhere")


def test_odd_folders_are_refused(tmp_path):
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(ValueError, match="has no sub-folders; put each class's images"):
        load_images(tmp_path)
    make_folder(tmp_path / "data")
    (tmp_path / "data" / "empty").mkdir()
    (tmp_path / "data" / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="The class folder .*empty holds no image"):
        load_images(tmp_path / "data")
    make_folder(tmp_path / "mixed", ("web",))
    make_folder(tmp_path / "mixed" / "..", images=1)
    (tmp_path / "red").rename(tmp_path / "mixed" / "red")
    with pytest.raises(ValueError, match="mixed.red holds images while .*class/image or domain/class/image"):
        load_images(tmp_path / "mixed")


# --- splits that a folder has ---


def make_splits(root, *places, images=4):
    """A folder with the same three classes in each place, such as train/web; a number goes into each file's name."""
    for number, place in enumerate(places):
        for file in make_folder(root / place, images=images).glob("*/*.png"):
            file.rename(file.with_name(f"{number}_{file.name}"))
    return root


def places(images):
    """The splits that each folder above the classes went to, by domain."""
    above = images.table["file"].str.rsplit("/", n=2).str[0]
    return images.table.groupby([images.table["domain"], above])["split"].agg(lambda s: set(s)).to_dict()


def test_train_val_and_test_are_splits(tmp_path):
    images = load_images(make_splits(tmp_path, "train", "val", "test"))
    assert images.domains == ["images"] and images.classes == ["dark blue", "green", "red"]
    assert places(images) == {
        ("images", "train"): {"train"}, ("images", "val"): {"validation"}, ("images", "test"): {"test"}
    }  # fmt: skip
    assert len(images.train) == len(images.validation) == len(images.test) == 12


@pytest.mark.parametrize("names", [("Training", "valid"), ("train", "test"), ("train", "validation")])
def test_without_one_of_them_validation_comes_from_train(tmp_path, names):
    images = load_images(make_splits(tmp_path, *names))
    assert places(images) == {("images", names[0]): {"train", "validation"}, ("images", names[1]): {"test"}}
    assert set(images.validation.table["class"].value_counts()) == {1}
    again = [files(load_images(tmp_path, seed=seed).validation) for seed in (0, 1)]
    assert again[0] == files(images.validation) != again[1]


def test_domains_stand_below_the_splits(tmp_path):
    images = load_images(make_splits(tmp_path, "test/drawing", "test/web", "train/web"))
    assert images.domains == ["web", "drawing"]  # the first that has images to train on
    assert places(images) == {
        ("web", "train/web"): {"train", "validation"}, ("web", "test/web"): {"test"},
        ("drawing", "test/drawing"): {"test"},
    }  # fmt: skip


def test_splits_stand_in_each_domain_that_has_them(tmp_path):
    make_splits(tmp_path, "photo/train", "photo/val", "sketch/train", "sketch/test", "toy")
    images = load_images(tmp_path)
    assert places(images) == {
        ("photo", "photo/train"): {"train", "validation"}, ("photo", "photo/val"): {"test"},
        ("sketch", "sketch/train"): {"test"}, ("sketch", "sketch/test"): {"test"}, ("toy", "toy"): {"test"},
    }  # fmt: skip
    undivided = load_images(tmp_path, id_domain="toy")
    assert places(undivided)["toy", "toy"] == {"train", "validation", "test"}
    assert places(undivided)["photo", "photo/train"] == {"test"}
    with pytest.raises(ValueError, match="has no domain 'train'; it has photo, sketch, toy"):
        load_images(tmp_path, id_domain="train")


def test_classes_and_single_domains_may_be_called_as_splits_are(tmp_path):
    (make_folder(tmp_path / "classes", images=3) / "red").rename(tmp_path / "classes" / "train")
    (tmp_path / "classes" / "green").rename(tmp_path / "classes" / "test")
    assert load_images(tmp_path / "classes").classes == ["dark blue", "test", "train"]
    assert load_images(make_splits(tmp_path / "one", "train")).domains == ["train"]


def test_splits_beside_something_else_are_refused(tmp_path):
    make_splits(tmp_path / "beside", "train", "val", "sketch")
    with pytest.raises(ValueError, match=r"holds splits \(train, val\) beside sketch; put the splits into"):
        load_images(tmp_path / "beside")
    make_splits(tmp_path / "unlabelled", "train", "val")
    (tmp_path / "unlabelled" / "test").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "unlabelled" / "test" / "0.png")
    with pytest.raises(ValueError, match="unlabelled.test has no sub-folders; put each class's images"):
        load_images(tmp_path / "unlabelled")


# --- names ---

FOLDERS = ["dark-blue", "green", "red"]
NAMES = ["navy", "leaf green", "scarlet"]
FILES = {
    "dict.json": json.dumps(dict(zip(FOLDERS, NAMES, strict=True)) | {"n9": "unused"}),
    "index.json": json.dumps({"0": ["green", "leaf_green"], "1": ["dark-blue", "navy"], "2": ["red", "scarlet"]}),
    "names.csv": 'code,name\ndark-blue,"navy, a blue"\ngreen,leaf green\nred,scarlet\n',
    "names.tsv": "green\tleaf green\n\ndark-blue\tnavy\nred\tscarlet",
    "synsets.txt": "red scarlet, vermilion\ndark-blue navy\ngreen leaf green, moss\n",
    "tabs.txt": "red\tscarlet\ndark-blue\tnavy\ngreen\tleaf green\n",
    "commas.txt": "\ufeffred,scarlet\ndark-blue, navy\ngreen,leaf green\n",
    "list.txt": "navy\nleaf green, moss\nscarlet\n",
    "list.csv": 'navy\n"leaf green, moss"\nscarlet\n',
}


@pytest.mark.parametrize("source", ["dict", *FILES])
def test_names_take_the_place_of_codes(tmp_path, source):
    folder = make_folder(tmp_path / "photos", ("a", "b"))
    names = dict(zip(FOLDERS, NAMES, strict=True))
    if source != "dict":
        names = tmp_path / source
        names.write_text(FILES[source], encoding="utf-8")
    coded, named = load_images(folder), load_images(folder, class_names=names)
    assert named.classes == NAMES and torch.equal(named.labels, coded.labels)
    assert named.table.drop(columns="class").equals(coded.table.drop(columns="class"))  # the same division
    assert set(named.select(classes=["navy"]).table["file"].str.split("/").str[1]) == {"dark-blue"}


def test_classes_of_one_name_are_kept_apart_and_said_so(tmp_path):
    """ImageNet's list has two cranes: to refuse it would bar it, to merge them would be another benchmark."""
    folder = make_folder(tmp_path)
    with pytest.warns(UserWarning, match=r"class_names gives several class folders the same name \(crane\)"):
        images = load_images(folder, class_names={"green": "crane", "dark-blue": "owl", "red": "crane"})
    assert images.classes == ["owl", "crane (green)", "crane (red)"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a folder that has one of them needs no more
        load_images(folder, class_names=dict(zip(FOLDERS, NAMES, strict=True)) | {"blue": "navy"})


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("a.txt", "red scarlet", "a.txt has no name for dark-blue, green: add one for each class folder"),
        ("a.csv", "red,scarlet\ngreen,\ndark-blue,navy", "a.csv has no name for green"),
        ("a.json", "{}", "a.json has no name for dark-blue, green, red"),
        ("a.txt", "navy\nmoss", r"a.txt has 2 lines, none of which begins with .*\(dark-blue, green, red\)"),
        ("a.json", "[1", r"a.json holds no class names \(.*\): expected UTF-8 text"),
        ("a.json", "[]", r"a.json holds no class names \(.*\): expected UTF-8 text"),
        ("a.txt", b"red \xe9carlate", r"a.txt holds no class names \(.*\): expected UTF-8 text"),
        ("a.xlsx", "", "expected a .json, .csv, .tsv or .txt file"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, file, text, sentence):
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=sentence):
        load_images(make_folder(tmp_path / "photos"), class_names=tmp_path / file)


def test_names_are_for_folders_and_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*nowhere.txt"):
        load_images(make_folder(tmp_path), class_names=tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="PictoShift's classes have their names"):
        load_images(class_names={})


@pytest.mark.parametrize("place", ["mine/caf\udce9/a.png", "mine/cup/caf\udce9.png", "caf\udce9/cup/a.png"])
def test_names_that_are_not_utf_8_are_refused(tmp_path, place):
    file = tmp_path / place
    try:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
    except (OSError, UnicodeError):
        pytest.skip("this file system knows no such names")
    with pytest.raises(ValueError, match=r"^The name of .*caf\\xe9(\.png)? is not UTF-8; rename it\.$") as refused:
        load_images(tmp_path / place.split("/")[0])
    str(refused.value).encode()


def test_names_of_any_script_are_welcome(tmp_path):
    make_folder(tmp_path / "мои", images=1)
    (tmp_path / "мои" / "red").rename(tmp_path / "мои" / "é_猫")
    assert load_images(tmp_path / "мои").classes == ["dark blue", "green", "é 猫"]


# --- tables ---


def make_table(**columns):
    files = [f"{name}/{number}.png" for name in FOLDERS for number in range(8)]
    return pd.DataFrame({"file": files, "class": [file.split("/")[0] for file in files], **columns})


def test_a_table_works_as_a_folder_does(tmp_path, monkeypatch):
    make_folder(tmp_path / "mine")
    table = make_table(author="me")
    monkeypatch.chdir(tmp_path)
    images, folder = ImageSet.from_table(table, "mine", seed=3), load_images("mine", seed=3)
    monkeypatch.chdir("/")
    assert images.name == "mine" and images.domains == ["images"] and images.classes == FOLDERS
    assert images.table["split"].tolist() == folder.table["split"].tolist()
    assert set(images.table["author"]) == {"me"} and list(table) == ["file", "class", "author"]
    assert np.array_equal(images.image(20), folder.image(20))


def test_a_table_says_what_it_says(tmp_path):
    root = make_folder(tmp_path)
    table = make_table(domain=["b", "a"] * 12, split=["train", "test", "test", "validation"] * 6)
    table["file"] = [root / file for file in table["file"]]  # full paths
    images = ImageSet.from_table(
        table.set_index(table.index + 7), classes=["red", "blue", "green", "dark-blue"], name="n"
    )
    assert images.id_domain == "b" and images.domains == ["b", "a"] and images.name == "n"
    assert images.table["split"].tolist() == table["split"].tolist()
    assert images.labels.tolist() == [3] * 8 + [2] * 8 + [0] * 8 and images.image(0).size == (40, 36)
    undivided = ImageSet.from_table(table.drop(columns="split"), id_domain="a")
    assert set(undivided.select(domain="b").table["split"]) == {"test"} and len(undivided.few_shot(1)) == 3
    assert ImageSet.from_table(table, read=lambda file: file).image(2) == str(root / "dark-blue" / "2.png")


@pytest.mark.parametrize(
    ("table", "options", "sentence"),
    [
        (make_table().drop(columns="class"), {}, "has no column class, only file: give the file and the class"),
        (make_table().rename(columns=str.title), {}, "has no column file and no column class, only Class, File"),
        (make_table()[:0], {}, "has no rows: give one for each image"),
        (make_table(domain=["a", None] * 12), {}, "has no domain in row 1: fill it in or drop the row"),
        (make_table(split="val"), {}, "has the split val: name splits train, validation, test"),
        (pd.concat([make_table()] * 2), {}, "table names dark-blue/0.png twice: keep one row of it"),
        (make_table(), dict(classes=["red", "green"]), "has the class dark-blue, but its classes are green, red: add"),
        (make_table(), dict(classes=[*FOLDERS, "red"]), "the classes of mine have red twice"),
        (make_table(), dict(id_domain="web"), "mine has no domain 'web'; it has images"),
    ],
)  # fmt: skip
def test_odd_tables_are_refused(table, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ImageSet.from_table(table, "mine", **options)


# --- other processes ---


def pixels(image):
    return torch.tensor(np.asarray(image.resize((16, 16))).copy())


class Pixels(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images.tensor(pixels, [row])[0], self.images.labels[row]


@pytest.mark.parametrize("source", ["pictoshift", "folder"])
def test_an_image_set_can_be_pickled(tmp_path, monkeypatch, source):
    whole = load_images(source if source == "pictoshift" else make_folder(tmp_path / "mine", ("a", "b")))
    images = whole.few_shot(2)
    expected = images.tensor(pixels)
    dumped = pickle.dumps(images)
    assert len(dumped) < len(pickle.dumps(images.table)) + expected.nbytes // 2  # without what was read
    monkeypatch.chdir("/")
    again = pickle.loads(dumped)
    assert again.table.equals(images.table) and again.classes == images.classes and not again._tensors
    assert (again.id_domain, again.name, again.domains) == (images.id_domain, images.name, images.domains)
    assert torch.equal(again.tensor(pixels), expected) and torch.equal(again.labels, images.labels)
    assert pickle.loads(pickle.dumps(whole)).test.table.equals(whole.test.table)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_what_one_process_reads(tmp_path, start):
    if start not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    folder, pictoshift = load_images(make_folder(tmp_path, images=10)), load_images()
    dataset = ConcatDataset([Pixels(folder), Pixels(pictoshift.take(range(0, 4000, 5)))])
    loader = DataLoader(dataset, 10, num_workers=2, multiprocessing_context=start)
    pictoshift.image(0)  # the archive is open when the workers begin
    found = list(loader)
    for part in (0, 1):  # images and labels
        expected = torch.stack([item[part] for item in dataset])
        assert torch.equal(torch.cat([batch[part] for batch in found]), expected)


def test_threads_read_what_one_thread_reads(pictoshift):
    rows = range(0, 2000, 5)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: pictoshift.image(row).tobytes(), rows))
    assert found == [pictoshift.image(row).tobytes() for row in rows]


# --- reading ---


@pytest.mark.parametrize("error", [ValueError, OSError, SyntaxError, IndexError])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    images = load_images(make_folder(tmp_path, images=1))

    def fail(image):
        raise error("a bad header")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match=r"green.0\.png is no readable image \(a bad header\); repair or"):
        images.image(1)


@pytest.mark.parametrize("damage", ["cut short", "text", "empty"])
def test_broken_images_are_named(tmp_path, damage):
    file = make_folder(tmp_path, images=4) / "green" / "2.png"
    whole = file.read_bytes()
    file.write_bytes({"cut short": whole[: len(whole) // 2], "text": b"no image", "empty": b""}[damage])
    images = load_images(tmp_path)
    with pytest.raises(ValueError, match=r"green.2\.png is no readable image \(.*\); repair or remove it"):
        images.tensor(make_backbone().preprocess)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "1", "P", "CMYK"])
def test_all_images_become_rgb(tmp_path, mode):
    (tmp_path / "thing").mkdir()
    file = tmp_path / "thing" / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (4, 4), "white").convert(mode).save(file)
    image = load_images(tmp_path).image(0)
    assert image.mode == "RGB" and image.getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_of_grey_are_scaled(tmp_path, suffix):
    (tmp_path / "thing").mkdir()
    greys = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    Image.fromarray(greys).save(tmp_path / "thing" / f"a.{suffix}")
    image = load_images(tmp_path).image(0)
    assert image.mode == "RGB" and np.asarray(image)[..., 1].tolist() == [[0, 0, 1], [128, 255, 255]]


# Where the corner that was stored first belongs, by the EXIF orientation: (bottom, right).
CORNERS = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "MPO"])
def test_photos_stand_upright(tmp_path, kind, orientation):
    (tmp_path / "thing").mkdir()
    stored = Image.new("RGB", (64, 32), "white")
    stored.paste("black", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    several = {"save_all": True, "append_images": [stored]} if kind == "MPO" else {}
    suffix = "png" if kind == "PNG" else "jpg"
    stored.save(tmp_path / "thing" / f"a.{suffix}", kind, exif=exif, **several)
    image = load_images(tmp_path).image(0)
    assert image.size == ((32, 64) if orientation >= 5 else (64, 32))
    dark = np.asarray(image)[..., 0] < 128
    bottom, right = CORNERS[orientation]
    assert dark[-8 * bottom, -8 * right] and dark.sum() == pytest.approx(256, abs=20)


def test_exif_that_makes_no_sense_is_passed_over(tmp_path):
    (tmp_path / "thing").mkdir()
    Image.new("RGB", (6, 4), "red").save(tmp_path / "thing" / "a.png", exif=b"nonsense")
    assert load_images(tmp_path).image(0).size == (6, 4)


def test_large_photos_are_decoded_smaller_and_small_ones_whole(tmp_path):
    (tmp_path / "thing").mkdir()
    for width, height in ((4160, 2100), (2047, 4000), (300, 200)):
        Image.radial_gradient("L").resize((width, height)).save(tmp_path / "thing" / f"{width}.jpg")
    images = load_images(tmp_path)
    found = {images.table["file"][row]: images.image(row) for row in range(3)}
    assert {file: image.size for file, image in found.items()} == {
        "thing/4160.jpg": (2080, 1050), "thing/2047.jpg": (2047, 4000), "thing/300.jpg": (300, 200)
    }  # fmt: skip
    expected = Image.open(tmp_path / "thing" / "4160.jpg").convert("RGB").resize((2080, 1050), Image.Resampling.BOX)
    difference = np.asarray(found["thing/4160.jpg"], int) - np.asarray(expected, int)
    assert np.abs(difference).mean() < 1


def test_hidden_files_are_passed_over(tmp_path):
    folder = make_folder(tmp_path, images=3)
    (folder / "red" / "._1.png").write_bytes(b"\0\5\x16\7 what macOS leaves on foreign disks")
    images = load_images(folder)
    assert len(images) == len(images.tensor(make_backbone().preprocess)) == 9
    (folder / "blue").mkdir()
    (folder / "blue" / "._1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="The class folder .*blue holds no image"):
        load_images(folder)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_paper_is_white(tmp_path, mode):
    """An icon's black lines stay visible: what lies under the transparent pixels is black, too."""
    (tmp_path / "thing").mkdir()
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, 1, 1, 1])
        image.putpixel((1, 1), 1)
        image.save(tmp_path / "thing" / "a.png", transparency=0)
    else:
        image = Image.new(mode, (4, 4), (0,) * len(mode))
        image.putpixel((1, 1), (1,) * (len(mode) - 1) + (255,))
        image.save(tmp_path / "thing" / "a.png")
    read = load_images(tmp_path).image(0)
    assert read.getpixel((0, 0)) == (255, 255, 255) and read.getpixel((1, 1)) == (1, 1, 1)


def test_each_preprocess_gets_its_own_tensors(tmp_path):
    images = load_images(make_folder(tmp_path, images=3))
    seen = []

    def brightness(image):
        seen.append(image)
        return torch.tensor(np.asarray(image).mean(), dtype=torch.float32)[None]

    def width(image):
        return torch.tensor([float(image.width)])

    first = images.tensor(brightness)
    assert torch.equal(images.tensor(width), torch.full((9, 1), 40.0))
    assert torch.equal(images.tensor(brightness), first) and len(seen) == 9  # each file is read once
    some = images.select(classes=["red"])
    assert torch.equal(some.tensor(brightness), first[images.labels == 2]) and len(seen) == 9
    assert torch.equal(images.tensor(brightness, [4, 0]), first[[4, 0]])


def test_a_preprocess_that_is_gone_leaves_nothing_behind(tmp_path):
    """A new function may stand where an old one stood in memory."""
    images = load_images(make_folder(tmp_path, images=1))
    for number in range(20):
        found = images.tensor(lambda image, number=number: torch.tensor([number]))
        assert found.flatten().tolist() == [number] * 3
    gc.collect()
    assert not images._tensors


def test_what_does_not_fit_into_memory_is_read_anew(tmp_path, monkeypatch):
    images = load_images(make_folder(tmp_path / "shapes"))
    preprocess = make_backbone().preprocess
    whole = images.tensor(preprocess)
    monkeypatch.setattr("radapter_lite.data.images.KEPT_IMAGE_BYTES", 3 * whole[0].nbytes)
    small = load_images(tmp_path / "shapes")
    assert torch.equal(small.tensor(preprocess), whole)
    assert len(small._tensors[preprocess]) == 3
    assert torch.equal(small.tensor(preprocess, [5, 0]), whole[[5, 0]])


# --- photographs of drawings ---


def camera(**settings) -> ImageSet:
    return load_images(id_domain="camera", **settings)


def test_photographs_are_of_the_same_designs_as_the_drawings_and_no_design_crosses_splits() -> None:
    images, outline = camera(), load_images()
    own = images.table[images.table["domain"] == "camera"]
    design = own["file"].str.extract(r"camera/(.*)\.\d+\.png")[0]
    assert own.groupby(design)["split"].nunique().eq(1).all()
    drawings = outline.table[outline.table["domain"] == "outline"]
    for split in ("train", "validation", "test"):
        of_split = drawings[drawings["split"] == split]["file"].str.extract(r"outline/(.*)\.png")[0]
        assert set(design[own["split"] == split]) == set(of_split)
    assert own[own["split"] == "train"].groupby(design)["view"].nunique().eq(4).all()
    assert images.id_domain == "camera" and "outline" in images.ood_domains and len(images.ood_domains) == 6
    assert set(images.table[images.table["domain"] != "camera"]["split"]) == {"test"}


def test_a_photograph_is_drawn_from_its_design_and_view_alone() -> None:
    rows = [0, 700, 1400]
    first, again, harder = camera(), camera(views=2), camera(severity=0.9)
    for row in rows:
        assert np.array_equal(first.image(row), again.image(row)) and first.image(row).size == (96, 96)
        assert not np.array_equal(first.image(row), harder.image(row))
    views = [first.table.index[first.table["file"] == f"camera/airplane/bi--airplane.{view}.png"][0] for view in (0, 1)]
    assert not np.array_equal(*(first.image(row) for row in views))


def test_severity_leads_from_the_drawing_to_what_is_hard_to_see() -> None:
    drawing = np.asarray(load_images().image(0).resize((84, 84), Image.Resampling.BICUBIC), float)
    still = np.asarray(camera(severity=0).image(0), float)
    assert abs(still[6:-6, 6:-6] - drawing).mean() < 4  # the drawing, a little smaller on its sheet
    far = [abs(np.asarray(camera(severity=s).image(0), float) - still).mean() for s in (0.0, 0.3, 0.6, 1.0)]
    assert far == sorted(far) and far[0] == 0


def test_few_shots_draw_every_design_once_before_another_view_of_one() -> None:
    images = camera()
    sixteen, twenty = images.few_shot(16, 3), images.few_shot(20, 3)
    assert set(sixteen.table["view"]) == {0} and len(sixteen) == 16 * len(images.classes)
    assert twenty.table["view"].value_counts().to_dict() == {0: 16 * 82, 1: 4 * 82}
    assert set(sixteen.table["file"]) <= set(twenty.table["file"])


def test_many_views_make_tens_of_thousands_of_images() -> None:
    assert len(camera(views=20).train) == 20 * 1312


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"id_domain": "camera", "severity": 1.5}, "severity must lie in [0, 1], from the drawings"),
        ({"id_domain": "camera", "severity": True}, "severity must lie in [0, 1]"),
        ({"id_domain": "camera", "severity": "0.5"}, "severity must lie in [0, 1], from the drawings to the hardest"),
        ({"id_domain": "camera", "views": 0}, "views must be a whole number of 1 or more, not 0"),
        ({"severity": 0.5}, 'photographs: give them with id_domain="camera" alone'),
        ({"source": "somewhere", "views": 2}, "severity and views are of PictoShift's photographs"),
    ],
)
def test_settings_of_photographs_are_checked(settings, sentence) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_images(**settings)


def test_photographs_go_to_other_processes() -> None:
    again = pickle.loads(pickle.dumps(camera(severity=0.4).take([5])))
    assert np.array_equal(again.image(0), camera(severity=0.4).image(5))


def test_only_some_classes_are_a_benchmark_of_their_own(tmp_path):
    images = load_images(make_folder(tmp_path / "shapes", images=8))
    two = images.only(images.classes[:0:-1])
    assert two.classes == images.classes[:0:-1] and set(two.table["class"]) == set(two.classes)
    assert [two.classes[label] for label in two.labels] == two.table["class"].tolist()
    for wrong, found in ((["typo"], "has no class typo"), ([], "has no class in an empty list")):
        with pytest.raises(ValueError, match=f"{found}: name some of its {len(images.classes)}"):
            images.only(wrong)


def test_glyphs_are_images_of_classes_that_pictoshift_has_not() -> None:
    images = pickle.loads(pickle.dumps(load_glyphs()))
    words = {word for name in load_images().classes for word in name.split()}
    assert not {word for name in images.classes for word in name.split()} & words
    assert len(images.classes) > 90 and set(images.table["class"]) == set(images.classes)
    drawn = [np.asarray(images.image(row)) for row in range(len(images))]
    assert {picture.shape for picture in drawn} == {(48, 48, 3)}
    assert all(picture[:3].min() > 200 and 0.01 < (picture < 128).mean() < 0.9 for picture in drawn)
    assert len({picture.tobytes() for picture in drawn}) > 0.95 * len(drawn)
