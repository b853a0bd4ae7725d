"""Folders, tables, shards, Parquet files and saved data sets: one image set, whatever it is read from and how."""

import json
import os
import pickle
import subprocess
import sys
import tarfile
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from datasets import Image as ImageFeature
from webdataset import ShardWriter

from radapter_lite.cli import main
from radapter_lite.data import ImageSet, load_images, readers
from radapter_lite.data import images as images_module
from radapter_lite.encoding import predict
from radapter_lite.evaluation import evaluate, sweep
from radapter_lite.methods import METHODS, tune
from radapter_lite.tasks import as_task
from radapter_lite.training import TrainingConfig

NAMES = ["dark blue", "green", "red"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Where datasets keeps what it reads of Parquet files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The same 24 images as a folder, a table, shards, Parquet files and saved data sets, with classes or captions."""
    home = tmp_path_factory.mktemp("home")
    folder = load_images(make_folder(home / "folder"))
    rows = [{"path": str(home / "folder" / f), "label": c} for f, c in folder.table[["file", "class"]].to_numpy()]
    for number, row in enumerate(rows):
        row["caption"] = f"a {row['label']} sheet {number // 2}"
    classes, captions = ([{k: r[k] for k in ("path", own)} for r in rows] for own in ("label", "caption"))
    for name, own in (("classes", classes), ("captions", captions)):
        pd.DataFrame(own).to_csv(home / f"{name}.csv", index=False)
        (home / f"{name}_tars").mkdir()
        with ShardWriter(f"{home}/{name}_tars/%04d.tar", maxcount=10, verbose=0) as shards:
            for number, row in enumerate(own):
                beside = {"cls": str(NAMES.index(row["label"]))} if "label" in row else {"txt": row["caption"]}
                shards.write({"__key__": f"{number:06d}", "png": Path(row["path"]).read_bytes(), **beside})
        table = {"photo": [row["path"] for row in own]}
        kinds = {"photo": ImageFeature()}
        if name == "classes":
            table["label"], kinds["label"] = [row["label"] for row in own], ClassLabel(names=NAMES)
        else:
            table["text"], kinds["text"] = [[row["caption"], "a sheet"] for row in own], Sequence(Value("string"))
        dataset = Dataset.from_dict(table, features=Features(kinds))
        dataset.to_parquet(home / f"{name}.parquet")
        dataset.save_to_disk(home / f"{name}_saved")
        DatasetDict(train=dataset.select(range(0, 24, 2)), test=dataset.select(range(1, 24, 2))).save_to_disk(
            home / f"{name}_split"
        )
    (home / "names.txt").write_text("\n".join(NAMES))
    return home


SOURCES = ["{}.csv", "{}_tars", "{}_tars/{{0000..0002}}.tar", "{}.parquet", "{}_saved", "{}_split"]


def load(home, source, what="classes", **options):
    names = {"class_names": home / "names.txt"} if "tars" in source and what == "classes" else {}
    return load_images(home / source.format(what), **names, **options)


def pixels(image_set, rows=None):
    return image_set.tensor(make_backbone().preprocess, rows)


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_folders_images(home, source):
    folder, found = load_images(home / "folder"), load(home, source)
    assert found.classes == NAMES and len(found) == 24 and found.domains == ["images"]
    if "_split" not in source:
        assert torch.equal(found.labels, folder.labels) and torch.equal(pixels(found), pixels(folder))
        assert found.table["split"].tolist() == folder.table["split"].tolist()
    else:
        assert (len(found.train) + len(found.validation), len(found.test)) == (12, 12)
        assert torch.equal(pixels(found, range(12)), pixels(folder, range(0, 24, 2)))
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(pixels(again, [23]), pixels(found, [23]))


@pytest.mark.parametrize("what", ["classes", "captions"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_tuned_on_and_measured(home, source, what):
    backbone, found = make_backbone(), load(home, source, what)
    tuned = tune(backbone, found.few_shot(24), steps=2, batch_size=4, momentum=0.5)
    assert any(tensor.any() for tensor in tuned.delta.tensors.values())
    swept = sweep(backbone, tuned, found.test, [0, 1])
    metric = "accuracy" if what == "classes" else "recall"
    assert swept[metric].between(0, 100).all() and len(swept) == 2
    assert as_task(found).metric == metric


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_tuned_on_shards(home, method):
    backbone, found = make_backbone(), load(home, "{}_tars")
    few = {"steps": 8, "batch_size": 4} if METHODS[method].trains else {}
    swept = sweep(backbone, tune(backbone, found.few_shot(2), method, **few), found.test, [1])
    assert swept["accuracy"].between(0, 100).all() and swept["images"].tolist() == [6]


@pytest.mark.parametrize("source", ["{}_tars", "{}.parquet", "{}_saved"])
def test_the_terminal_takes_every_source(home, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(home)
    short = ["--shots", "2", "--set", "epochs", "1", "--set", "momentum", "0.5"]
    assert main(["tune", source.format("classes"), *short, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    for word in ("Listing", "training images of 24", "Tuning", "test images, and measuring"):
        assert word in told
    assert main(["sweep", str(tmp_path / "out" / "tuned"), source.format("classes"), "--alphas", "1"]) == 0


def test_what_lies_beside_class_folders_is_no_source(tmp_path):
    folder = make_folder(tmp_path / "shapes")
    (folder / "notes.tar").touch()
    assert load_images(folder).classes == NAMES


# --- what is refused ---


def tar(path, **members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            file = path.with_name("member")
            file.write_bytes(content)
            archive.add(file, name.replace("_", "."))
    return path


IMAGE = b"an image"


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        (dict(a_png=IMAGE, a_pyd=pickle.dumps(1)), "s.tar holds a.pyd, which is pickled and could run anything"),
        (dict(a_png=IMAGE), "neither class, label, caption nor text among file"),
        (dict(a_txt=b"a cup"), "s.tar has no image beside a"),
        (dict(a_png=IMAGE, a_json=b"{"), "s.tar cannot be read"),
        (dict(a_png=IMAGE, a_txt=b"\xe9"), "s.tar cannot be read"),
    ],
)
def test_odd_shards_are_refused(tmp_path, members, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_images(tar(tmp_path / "s.tar", **members))


def test_odd_files_and_data_sets_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar")
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    Dataset.from_dict({"label": ["a"], "size": [1]}).to_parquet(tmp_path / "b.parquet")
    Dataset.from_dict({"image": [b""], "size": [1]}).save_to_disk(tmp_path / "c")
    for name, sentence in (
        ("a.tar", "a.tar cannot be read .*expected shards of uncompressed tar, Parquet files, or a folder that"),
        ("a.parquet", "a.parquet cannot be read"),
        ("b.parquet", r"b.parquet cannot be read \(no image among the columns label, size\)"),
        ("c", "c cannot be read .neither class, label, caption nor text among "),
        ("nowhere.parquet", "nowhere.parquet cannot be read"),
        ("{0..2}.tar", r"0..2..tar cannot be read \(.*No such file or directory"),
    ):
        with pytest.raises(ValueError, match=sentence):
            load_images(tmp_path / name)
    with pytest.raises(ValueError, match="broken images stop or skip, and do not 'ignore'"):
        load_images(broken="ignore")


@pytest.mark.parametrize(("source", "library"), [("a.tar", "webdataset"), ("a.parquet", "datasets")])
def test_a_missing_library_is_named(tmp_path, monkeypatch, source, library):
    (tmp_path / source).touch()
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"needs {library}.*not installed: pip install .radapter-lite.scale"):
        load_images(tmp_path / source)


def test_json_says_class_caption_domain_and_split(tmp_path):
    said = [{"label": 10, "domain": "web", "split": "train"}, {"label": 9, "domain": "web", "split": "val", "url": "x"}]
    members = {f"{n}_{kind}": content for n, each in enumerate(said)
               for kind, content in (("jpg", IMAGE), ("json", json.dumps(each).encode()))}  # fmt: skip
    found = load_images(tar(tmp_path / "s.tar", **members))
    assert found.classes == ["9", "10"] and found.id_domain == "web"  # numbers in their order
    assert found.table["split"].tolist() == ["train", "test"] and found.labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="s.tar/0.jpg is no readable image"):
        found.image(0)


# --- broken images ---


@pytest.fixture
def damaged(tmp_path):
    """A folder whose images 1 to 3 of green, and 5 of red, are broken."""
    folder = make_folder(tmp_path / "damaged")
    for name in ("green/1", "green/2", "green/3", "red/5"):
        (folder / f"{name}.png").write_bytes(b"no image")
    return folder


def test_broken_images_are_skipped_named_and_counted(damaged):
    backbone, found = make_backbone(), load_images(damaged, broken="skip")
    with pytest.warns(
        UserWarning, match=r"damaged: 4 of 24 images cannot be read and are left out: .*green.1.png"
    ) as w:
        sound = found.readable(backbone.preprocess)
    assert "red" not in str(w[0].message) and str(w[0].message).endswith("…")
    assert len(sound) == 20 and sound.classes == NAMES and sound.broken == "stop"
    expected = load_images(damaged).table["file"]
    broken = {"green/1.png", "green/2.png", "green/3.png", "red/5.png"}
    assert sound.table["file"].tolist() == [file for file in expected if file not in broken]
    with pytest.warns(UserWarning):
        scores = evaluate(backbone, found)
    assert scores["images"].item() == 20
    assert torch.equal(predict(backbone, sound), predict(backbone, load_images(damaged).take(sound_rows(found, sound))))
    with pytest.warns(UserWarning):
        tuned = tune(backbone, found.few_shot(24), steps=2, batch_size=4, momentum=0.5)
    alone = tune(backbone, found.few_shot(24).take(
        [row for row, file in enumerate(found.few_shot(24).table["file"]) if file not in broken]
    ).readable(backbone.preprocess), steps=2, batch_size=4, momentum=0.5)  # fmt: skip
    assert all(torch.equal(tensor, alone.delta.tensors[name]) for name, tensor in tuned.delta.tensors.items())


def sound_rows(found, sound):
    kept = set(sound.table["file"])
    return [row for row, file in enumerate(found.table["file"]) if file in kept]


def test_broken_images_are_skipped_among_captions(damaged):
    rows = load_images(damaged).table["file"].to_frame().assign(captions=lambda table: "a sheet of " + table["file"])
    found = replace(ImageSet.from_table(rows, damaged), broken="skip")
    with pytest.warns(UserWarning, match="4 of 24"):
        scores = evaluate(make_backbone(), found)
    assert (scores["images"].item(), scores["captions"].item()) == (20, 20)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_stop_unless_they_are_skipped(damaged, workers, monkeypatch):
    monkeypatch.setattr(images_module, "MANY", 1)
    found, backbone = load_images(damaged, workers=workers), make_backbone()
    with pytest.raises(ValueError, match=r"^\S*green.1.png is no readable image \(.*; repair or remove it.$"):
        found.readable(backbone.preprocess)
    with pytest.raises(ValueError, match=r"^\S*(green|red).\d.png is no readable image"):
        tune(backbone, found.few_shot(24), epochs=1, batch_size=4, momentum=0.0)
    with pytest.warns(UserWarning, match="4 of 24"):
        assert len(load_images(damaged, broken="skip", workers=workers).readable(backbone.preprocess)) == 20


def test_a_set_without_a_readable_image_stops(tmp_path):
    for file in make_folder(tmp_path, images=1).glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="3 of 3 images cannot be read"):
        load_images(tmp_path, broken="skip").readable(make_backbone().preprocess)


def test_the_terminal_skips_broken_images(damaged, tmp_path, capsys):
    command = ["tune", str(damaged), "--shots", "9", "--set", "epochs", "1", "--set", "momentum", "0", "--out"]
    assert main([*command, str(tmp_path / "stop")]) == 1
    assert "is no readable image" in capsys.readouterr().err
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert main([*command, str(tmp_path / "out"), "--broken", "skip"]) == 0
    told = [str(each.message) for each in told if "left out" in str(each.message)]
    assert sum(int(each.split(": ")[1].split()[0]) for each in told) <= 4 and told


# --- who reads, and how much ---


@pytest.mark.parametrize("kept", [2**31, 5 * 3 * 32 * 32 * 4])
@pytest.mark.parametrize("source", ["{}_tars", "{}_saved", "folder"])
def test_workers_change_no_number(home, source, kept, monkeypatch):
    """With all images kept in memory, or five of them, in training and in measuring."""
    monkeypatch.setattr(images_module, "MANY", 1)
    monkeypatch.setattr(images_module, "KEPT_IMAGE_BYTES", kept)
    results = []
    for workers in (0, 2):
        backbone, found = make_backbone(), load(home, source, workers=workers)
        torch.manual_seed(5)
        batches = as_task(found).batches(backbone, TrainingConfig(batch_size=7))
        drawn = [batch for _ in range(2) for batch in batches]
        results.append((drawn, torch.get_rng_state(), predict(backbone, found)))
        assert len(found._tensors[backbone.preprocess]) == min(24, kept // (3 * 32 * 32 * 4))
    (one, state, answers), (other, again, same) = results
    assert torch.equal(state, again) and torch.equal(answers, same)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_tune_reads_what_it_trains_on_and_only_then_what_it_measures(home, tmp_path, monkeypatch):
    read, at_start, decoded = Counter(), Counter(), readers.decoded

    def counted(source, name):
        read[Path(name).relative_to(home / "folder").as_posix()] += 1
        return decoded(source, name)

    def started(*arguments, **options):
        at_start.update(read)
        return train(*arguments, **options)

    from radapter_lite.methods import registry

    train = registry.train
    monkeypatch.setattr(readers, "decoded", counted)
    monkeypatch.setattr(registry, "train", started)
    command = ["tune", str(home / "folder"), "--shots", "2", "--set", "epochs", "2", "--set", "momentum", "0.5"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    found = load_images(home / "folder")
    few, test = (set(each.table["file"]) for each in (found.few_shot(2), found.test))
    assert at_start == Counter(few) and read == Counter(few | test)  # each once; of the others none


def test_what_does_not_fit_into_memory_is_not_read_before(home, monkeypatch):
    monkeypatch.setattr(images_module, "KEPT_IMAGE_BYTES", 5 * 3 * 32 * 32 * 4)
    backbone, found, read = make_backbone(), load_images(home / "folder"), []
    monkeypatch.setattr(readers, "decoded", lambda *named, own=readers.decoded: read.append(named) or own(*named))
    assert found.readable(backbone.preprocess).table.equals(found.table) and len(read) == 6


MEASURE = """
import os, resource, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from conftest import make_backbone
from PIL import Image
from radapter_lite.data import images, load_images
from radapter_lite.tasks import as_task
from radapter_lite.training import TrainingConfig

images.KEPT_IMAGE_BYTES = 2**20
backbone = replace(make_backbone(), preprocess=lambda image: torch.full((3, 8, 8), float(image.width)))
peak = []
for size in map(int, sys.argv[2:]):
    root = Path(sys.argv[1]) / str(size)
    for number in range(size):
        file = root / f"class_{number % 50:02d}" / f"image_{number:07d}.png"
        if number < 1000:
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file)
        else:  # a link, to one of as many files as a file system may need
            os.link(root / f"class_{number % 50:02d}" / f"image_{number % 1000:07d}.png", file)
    begun = time.perf_counter()
    found = load_images(root)
    listed = time.perf_counter() - begun
    few, parts = found.few_shot(16), (found.train, found.validation, found.test)
    seen = sum(len(batch.labels) for batch in as_task(found).batches(backbone, TrainingConfig(batch_size=500)))
    assert seen == len(found) == size and sum(map(len, parts)) == size and len(few) <= 16 * 50
    peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    print(f"{size} files: listed in {listed:.2f} s, {peak[-1] / 2**20:.0f} MB at the peak", file=sys.stderr)
print((peak[-1] - peak[0]) / (size - int(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells no peak of memory")
def test_memory_grows_by_the_tables_rows_alone(tmp_path, record_property):
    """At the peak of listing 100,000 files, drawing few shots, selecting each split and going through an epoch."""
    script = [sys.executable, "-c", MEASURE, tmp_path, "1000", "100000"]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(script, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record_property("bytes_per_file", float(done.stdout))
    assert float(done.stdout) < 700, done.stderr
