"""tune, sweep and export: from a folder of images to files that others can open."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from conftest import TEXT, VISION, make_folder
from PIL import Image

from radapter_lite import Delta, load_clip, load_images, load_tuned, training
from radapter_lite.bench import RESULTS
from radapter_lite.cli import _parser, main
from radapter_lite.commands import options, report, tune
from radapter_lite.commands.options import parse_alpha
from radapter_lite.delta_file import write_tensors

SHORT = ["--set", "epochs", "2", "--set", "momentum", "0.5"]
TUNE = ["--id", "photo", "--shots", "2", *SHORT]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ (two domains of three colours), and out/ as one tuning leaves it."""
    home = tmp_path_factory.mktemp("home")
    photos = make_folder(home / "photos", domains=("drawing", "photo"), images=6)
    assert main(["tune", str(photos), *TUNE, "--out", str(home / "out")]) == 0
    return home


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The delta of a small architecture that open_clip knows."""
    folder = tmp_path_factory.mktemp("tiny")
    config = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT | {"context_length": 77, "vocab_size": 49408}}
    (folder / "tiny-for-export.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-for-export.json")
    backbone = load_clip("tiny-for-export", "random")
    state = backbone.model.state_dict()
    names = [name for name in state if name.endswith("mlp.c_proj.weight")]
    generator = torch.Generator().manual_seed(0)
    factors = {
        name: (
            torch.randn(len(state[name]), 2, generator=generator),
            torch.randn(2, state[name].shape[1], generator=generator),
        )
        for name in names
    }
    Delta.from_low_rank(state, factors, backbone=backbone).save(folder / "delta")
    return folder / "delta"


def test_tune_leaves_a_delta_a_table_and_a_figure(home: Path) -> None:
    assert sorted(path.name for path in (home / "out").iterdir()) == [
        "sweep.csv",
        "sweep.html",
        "sweep.png",
        "sweep.svg",
        *(f"sweep_{what}.{kind}" for what in ("calibration", "classes") for kind in ("csv", "png", "svg")),
        "tuned.json",
        "tuned.safetensors",
    ]
    delta = Delta.load(home / "out" / "tuned")
    about = delta.meta["data"]
    assert (about["images"], about["id_domain"], about["shots"]) == ("photos", "photo", 2)
    few = load_images(home / "photos", id_domain="photo").few_shot(2)
    assert about["training_images"] == few.table["file"].tolist() and len(few) == 6
    assert all((home / "photos" / file).is_file() for file in about["training_images"])
    assert delta.meta["settings"]["training"]["epochs"] == 2
    assert any(tensor.any() for tensor in delta.tensors.values())
    swept = pd.read_csv(home / "out" / "sweep.csv")
    assert set(swept["domain"]) == {"photo", "drawing"} and {0, 0.5, 1} <= set(swept["alpha"])


def test_an_interrupted_tune_goes_on_with_the_same_command(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = training._Run.save

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    command = ["tune", str(home / "photos"), *TUNE, "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "save", save_and_stop)
        assert main(command) == 130
    assert len(list((tmp_path / "out").glob("training_*.pt"))) == 1
    assert main(command) == 0
    told = capsys.readouterr()
    assert "Going on from" in told.out and told.err == (
        "radapter-lite: interrupted; what was finished is kept.\n"
    )  # and no progress bar, for this is no terminal
    assert not list((tmp_path / "out").glob("training_*.pt"))
    once, resumed = Delta.load(home / "out" / "tuned"), Delta.load(tmp_path / "out" / "tuned")
    assert all(torch.equal(once.tensors[name], tensor) for name, tensor in resumed.tensors.items())


def test_a_folder_without_domains_is_tuned_and_swept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "shapes", images=5)
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "shapes", "--shots", "9", *SHORT]) == 0
    told = capsys.readouterr().out
    (out,) = Path("out").iterdir()
    assert out.name.startswith("shapes_images_picto_R-Adapter_9_shots_seed_0_")
    assert "images (ID)" in told and "OOD" not in told and "fewer than 9" in told
    assert f"radapter-lite sweep {out / 'tuned'} shapes" in told
    assert main(["sweep", str(out / "tuned"), "shapes", "--alphas", "1", "0"]) == 0
    assert pd.read_csv(out / "sweep_shapes.csv")["alpha"].tolist() == [0, 1]


def test_the_commands_that_tune_prints_work_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With weights of one's own, of which the delta knows the file's name alone, and spaces in every path."""
    make_folder(tmp_path / "my shapes", images=3)
    (tmp_path / "my weights").mkdir()
    weights = "my weights/a b.safetensors"
    write_tensors(tmp_path / weights, load_clip("picto", "random").model.state_dict(), {})
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "my shapes", "--shots", "1", *SHORT, "--pretrained", weights]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  radapter-lite ")]
    assert [shlex.split(line)[1] for line in printed] == ["sweep", "export"]
    for line in printed:
        assert main(shlex.split(line)[1:]) == 0


@pytest.mark.parametrize(
    ("method", "extra", "has_alpha"),
    [
        ("LoRA", ["--set", "rank", "2", "--set", "epochs", "1"], True),
        ("linear probe", ["--set", "C", "10"], True),
        ("CoOp", ["--set", "epochs", "1", "--prompt", "a picture of {}"], False),
    ],
)
def test_any_method_is_tuned_kept_and_swept(
    method: str,
    extra: list[str],
    has_alpha: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_folder(tmp_path / "shapes", images=4)
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "shapes", "--shots", "1", "--method", method, *extra, "--out", "out"]) == 0
    told = capsys.readouterr().out
    merges = method == "LoRA"
    assert f"by {method} on 3 images" in told and ("radapter-lite export" in told) == merges
    tuned = load_tuned("out/tuned")
    assert (tuned.method, tuned.has_alpha) == (method, has_alpha)
    if method == "CoOp":
        assert tuned.meta["prompts"] == ["a picture of {}"]
    alphas = {0, 0.25, 0.5, 0.75, 1} if has_alpha else {0, 1}
    assert set(pd.read_csv("out/sweep.csv")["alpha"]) == alphas
    assert main(["sweep", "out/tuned", "shapes", "--alphas", "1"]) == 0
    assert main(["export", "out/tuned", "--out", "m.safetensors"]) == (0 if merges else 1)
    assert merges or f"{method} learns no change" in capsys.readouterr().err


def test_prompts_are_given_kept_and_replaced(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {}

    def watched(name: str, *arguments: Any, prompts: Any = None, **options: Any) -> Any:
        said["prompts"] = prompts
        return load_clip(name, *arguments, prompts=prompts, **options)

    monkeypatch.setattr("radapter_lite.backbone.load_clip", watched)
    own = list(load_clip().prompts)
    command = ["sweep", str(home / "out" / "tuned"), str(home / "photos"), "--alphas", "0"]
    command += ["--out", str(tmp_path / "rows.csv")]
    assert main(command) == 0 and said["prompts"] == own  # those that were tuned with
    assert main([*command, "--prompt", "a {}", "--prompt", "the {}"]) == 0
    assert said["prompts"] == ("a {}", "the {}")
    (tmp_path / "prompts.txt").write_text("one {}\n\n  two {} \n")
    assert main([*command, "--prompt", str(tmp_path / "prompts.txt")]) == 0
    assert said["prompts"] == ("one {}", "two {}")


def test_a_checkpoint_is_told_by_its_run_and_not_by_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two folders of one name, with files of the same names."""
    for folder in ("a", "b"):
        make_folder(tmp_path / folder / "photos", images=3)
    monkeypatch.chdir(tmp_path)

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    command = ["--shots", "1", *SHORT, "--out", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("radapter_lite.encoding.image_features", stop)  # trained, and not yet measured
        assert main(["tune", "a/photos", *command]) == 130
    shutil.rmtree("out/tuned.json", ignore_errors=True)
    for file in Path("out").glob("tuned.*"):
        file.unlink()
    assert main(["tune", "b/photos", *command]) == 1
    assert "out holds the checkpoint of another run, training_" in capsys.readouterr().err
    assert main(["tune", "a/photos", *command]) == 0 and "Going on from" in capsys.readouterr().out


def test_other_runs_go_to_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        make_folder(tmp_path / folder / "photos", domains=("drawing", "photo"), images=3)
        (tmp_path / folder / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path)

    def place(command: str) -> Path:
        arguments = _parser().parse_args(["tune", *command.split()])
        images = options.load_images(arguments)
        return tune._folder(arguments, images, tune._run(arguments, images, options.prompts(arguments)))

    runs = [
        *("a/photos", "b/photos", "a/photos --id photo", "a/photos --shots 2", "a/photos --seed 1"),
        *("a/photos --set epochs 2", "a/photos --backbone ViT-B-32", "a/photos --pretrained random"),
        *("a/photos --pretrained a/w.safetensors", "a/photos --pretrained b/w.safetensors"),
    ]
    assert len({place(command) for command in runs}) == len(runs)
    assert place("a/photos") == place(f"{tmp_path}/a/photos --id drawing --device cpu")


def test_sweep_measures_what_tune_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = home / "again" / "rows.csv"
    command = ["sweep", str(home / "out" / "tuned.json"), str(home / "photos"), "--alphas", "0.5", "1"]
    assert main([*command, "--out", str(csv)]) == 0
    tuned, swept = pd.read_csv(home / "out" / "sweep.csv"), pd.read_csv(csv)
    expected = tuned[tuned["alpha"].isin([0.5, 1])].reset_index(drop=True)
    pd.testing.assert_frame_equal(swept, expected)  # the ID domain is the delta's, so no image was trained on
    assert swept.loc[swept["is_id"], "domain"].unique() == "photo"
    assert csv.with_suffix(".svg").exists() and "photo (ID)" in capsys.readouterr().out


@pytest.mark.parametrize("changed", ["another ID", "more images"])
def test_sweep_leaves_out_what_was_trained_on(
    changed: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "photos", tmp_path / "photos")
    command = ["sweep", str(home / "out" / "tuned"), str(tmp_path / "photos"), "--alphas", "0"]
    if changed == "another ID":
        command += ["--id", "drawing"]
    else:  # which divides the folder anew
        for name in ("red", "green", "dark-blue"):
            for number in range(5):
                shutil.copyfile(home / f"photos/photo/{name}/0.png", tmp_path / f"photos/photo/{name}/a{number}.png")
    test = load_images(tmp_path / "photos", id_domain="drawing" if "--id" in command else "photo").select(split="test")
    trained = set(Delta.load(home / "out" / "tuned").meta["data"]["training_images"])
    among = trained & set(test.table["file"])
    assert among  # or this would test nothing
    csv = tmp_path / "rows.csv"
    assert main([*command, "--out", str(csv)]) == 0
    assert pd.read_csv(csv)["images"].sum() == len(test) - len(among)
    assert f"left out, for they were trained on: {len(among)}." in capsys.readouterr().out


def test_sweep_takes_another_folder_with_domains_of_its_own(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = make_folder(tmp_path / "shapes", images=4)
    command = ["sweep", str(home / "out" / "tuned"), str(shapes), "--alphas", "0"]
    assert main([*command, "--out", str(tmp_path / "rows.csv")]) == 0
    told = capsys.readouterr().out
    assert "ID is images: shapes has no photo, which was tuned on." in told and "left out" not in told
    assert pd.read_csv(tmp_path / "rows.csv")["domain"].tolist() == ["images"]


def test_a_table_of_captions_tunes_retrieval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "shapes", images=5)
    table = load_images(tmp_path / "shapes").table
    files = "shapes/" + table["file"]
    rows = pd.concat([pd.DataFrame({"file": files, "captions": table["class"]}), pd.DataFrame(
        {"file": files, "captions": "a " + table["class"]})])  # fmt: skip
    rows.to_csv(tmp_path / "captions.csv", index=False)
    pd.DataFrame({"file": files, "class": table["class"], "captions": table["class"]}).to_csv(
        tmp_path / "both.tsv", index=False, sep="\t"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "captions.csv", *SHORT, "--out", "out/c"]) == 0
    told = capsys.readouterr().out
    images = load_images("captions.csv")
    assert set(images.table["captions"]) == {f"{name} | a {name}" for name in set(table["class"])}
    assert f"on {len(images.train)} images of 6 captions, ID images" in told and "Recall (%) on test images" in told
    assert {"recall", "text@1", "image@10"} <= set(pd.read_csv("out/c/sweep.csv"))
    assert main(["sweep", "out/c/tuned", "captions.csv", "--alphas", "0", "1"]) == 0
    assert "Recall (%) on test images of captions" in capsys.readouterr().out
    assert main(["tune", "both.tsv", "--shots", "2", *SHORT, "--out", "out/b"]) == 0
    assert "on 6 images of 3 classes" in capsys.readouterr().out


def test_the_table_has_domains_alphas_and_the_mean_of_ood() -> None:
    rows = [
        (alpha, name, name == "a", 10.0 + 20 * alpha + number)
        for alpha in (0.0, 1.0)
        for number, name in enumerate("abc")
    ]
    text = report.table(pd.DataFrame(rows, columns=["alpha", "domain", "is_id", "accuracy"]))
    assert [line.split() for line in text.splitlines()] == [
        ["α", "0", "1"],
        ["a", "(ID)", "10.0", "30.0"],
        ["b", "11.0", "31.0"],
        ["c", "12.0", "32.0"],
        ["mean", "of", "OOD", "11.5", "31.5"],
    ]


def test_merge_writes_a_checkpoint_that_load_clip_opens(home: Path) -> None:
    file = home / "checkpoints" / "merged.safetensors"
    assert main(["export", str(home / "out" / "tuned"), "--alpha", "image=1", "text=0.5", "--out", str(file)]) == 0
    merged, backbone = load_clip("picto", file).model.state_dict(), load_clip("picto")
    with Delta.load(home / "out" / "tuned").applied(backbone.model, {"image": 1.0, "text": 0.5}):
        expected = backbone.model.state_dict()
        assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())


def test_export_gives_open_clip_alone_the_same_features(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "exported"
    assert main(["export", str(tiny), "--alpha", "0.5", "--out", str(folder)]) == 0
    told = capsys.readouterr().out
    assert f'open_clip.create_model_from_pretrained("local-dir:{folder}")' in told
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    backbone, delta = load_clip("tiny-for-export", "random"), Delta.load(tiny)
    picture = preprocess(Image.new("RGB", (50, 40), "teal"))[None]
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a cat"])
    with torch.no_grad():
        got = model(picture, tokens)
        with delta.applied(backbone.model, 0.5):
            expected = backbone.model(picture, tokens)
        start = backbone.model(picture, tokens)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(got[:2], expected[:2], strict=True))
    assert not torch.allclose(got[0], start[0], atol=1e-2)


def test_an_export_that_open_clip_reads_otherwise_is_not_kept(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = open_clip.get_model_config

    def other_activation(name: str) -> dict:
        return real(name) | {"quick_gelu": True}

    monkeypatch.setattr(open_clip, "get_model_config", other_activation)
    assert main(["export", str(tiny), "--out", str(tmp_path / "exported")]) == 1
    assert "nothing was exported" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_device_is_the_fastest_or_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def device(*words: str) -> str:
        return options.device(_parser().parse_args(["tune", "photos", *words]))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device() == "cpu"
    with pytest.raises(ValueError, match="--device was given 'cuda': this machine has cpu$"):
        device("--device", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device() == "cuda" and device("--device", "cuda:1") == "cuda:1" and device("--device", "cpu") == "cpu"


def test_the_table_is_that_of_the_folder_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.read_csv(RESULTS / "few_shot.csv")
    rows[rows["shots"] == 16].to_csv(tmp_path / "few_shot.csv", index=False)
    assert main(["bench", "table"]) == 0
    own = capsys.readouterr().out
    assert main(["bench", "table", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n") < own.count("\n")


@pytest.mark.parametrize(
    ("command", "sentence"),
    {
        "app --port 0": "--port was given 0: expected a number from 1 to 65535",
        "app --port -1": "--port was given -1",
        "app --port 70000 --delta nothing": "--port was given 70000",
        "bench ablations --methods FLYP": "bench ablations takes no --methods: leave it out",
        "bench ablations --shots 4": "bench ablations takes no --shots",
        "bench search --seeds 2": "bench search takes no --seeds",
        "bench table --methods FLYP": "bench table takes no --methods",
        "bench overview --id camera": "bench overview takes no --id: leave it out",
        "bench few_shot --seeds 0": "--seeds was given 0: expected a number of 1 or more",
        "bench few_shot --jobs 0": "--jobs was given 0: expected a number of 1 or more",
        "bench table --jobs 2": "bench table takes no --jobs",
        "bench speed --jobs 2": "bench speed takes no --jobs: leave it out",
        "bench few_shot --dask nowhere": "no Dask cluster with a worker answers at nowhere (missing port number",
        "bench table --out nowhere": "the results few_shot are not in nowhere",
        "tune photos --seed -1": "--seed was given -1: expected a whole number from 0 to",
        "tune photos --seed 4294967296": "--seed was given 4294967296",
    }.items(),
)
def test_options_that_cannot_be_heeded_are_refused_at_once(
    command: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 1
    told = capsys.readouterr().err
    assert told.startswith("radapter-lite: ") and sentence in told and told.count("\n") == 1


def test_alpha_is_a_number_or_numbers_by_encoder() -> None:
    assert parse_alpha(["0.5"]) == 0.5
    assert parse_alpha(["image=1", "text=.5"]) == {"image": 1.0, "text": 0.5}


MISTAKES = {
    "no folder": ("tune nowhere", "There is no folder nowhere"),
    "unknown domain": ("tune photos --id web", "no domain 'web'; it has drawing, photo"),
    "empty class": ("tune empty", "The class folder empty/red holds no image"),
    "broken image": ("tune broken --shots 1", "broken.png is no readable image"),
    "out is a file": ("tune photos --out a_file", "a_file is a file where a folder"),
    "out of another run": ("tune photos --shots 1 --out out", "out holds what another run learned"),
    "no shots": ("tune photos --shots 0", "shots must be a whole number of 1 or more"),
    "no epochs": ("tune photos --set epochs 0", "epochs must be a whole number of 1 or more, not 0"),
    "no such setting": ("tune photos --set ranks 4", "RAdapterConfig has no setting 'ranks'; it has epochs"),
    "no such method": ("tune photos --method SGD", "SGD is no method of this kit; there are R-Adapter"),
    "no place for the name": ("tune photos --prompt nothing", "nothing is neither a prompt, which has {}"),
    "a memory too long": ("tune photos --shots 1 --set epochs 1", "leaves 98% of its zero start"),
    "out below a file": ("tune photos --shots 1 --out a_file/x", "the folder a_file/x cannot be made"),
    "merge below a file": ("export out/tuned --out a_file/m.safetensors", "the folder a_file cannot be made"),
    "sweep below a file": ("sweep out/tuned photos --out a_file/r.csv", "the folder a_file cannot be made"),
    "no file of names": ("tune photos --class-names no.csv", "There is no file no.csv"),
    "unknown backbone": ("tune photos --backbone ViT-B-99", "ViT-B-99 is no open_clip model"),
    "backbone without weights": ("tune photos --backbone ViT-B-32", "needs weights"),
    "no delta": ("sweep nothing photos", "nothing.safetensors is missing"),
    "corrupt delta": ("sweep corrupt photos", "is truncated, damaged or of another delta"),
    "no delta's JSON": ("export no_json --out m.safetensors", "no_json.json does not describe a delta"),
    "alpha too large": ("sweep out/tuned photos --alphas 0 1.5", "must be a number in [0, 1]"),
    "alpha of merge": ("export out/tuned --alpha -1 --out m.safetensors", "must be a number in [0, 1]"),
    "alpha of no encoder": ("export out/tuned --alpha audio=1 --out m.safetensors", "unknown key 'audio'"),
    "alpha in words": ("export out/tuned --alpha half --out m.safetensors", "was given 'half'"),
    "other backbone": (
        "sweep out/tuned photos --backbone tiny-for-export --pretrained random",
        "it is for load_clip('picto', pretrained='picto')",
    ),
    "other weights": (
        "export out/tuned --pretrained random --out m.safetensors",
        "are not the ones the delta was made on",
    ),
    "sweep into no table": ("sweep out/tuned photos --out rows.txt", "expected a file ending in .csv"),
    "export into a folder": ("export out/tuned --out photos", "photos is there already"),
    "merge onto its delta": ("export out/tuned --out out/tuned.safetensors", "out/tuned.safetensors is there already"),
    "merge into another format": ("export out/tuned --out m.pt", "must end in .safetensors"),
    "merge into another format elsewhere": ("export out/tuned --out new/m.pt", "must end in .safetensors"),
    "no such device": ("export out/tuned --device gpu --out m.safetensors", "--device was given 'gpu'"),
    "export of PictoCLIP": ("export out/tuned --out e", "which load_clip("),
    "no table": ("tune no.csv", "There is no table no.csv"),
    "a table without a column": ("tune column.csv", "column's table has no column class, only file, words: give"),
    "an empty caption": ("tune gap.csv", "gap has no caption for a.png: write one, or drop its row"),
    "no table of text": ("tune bytes.tsv", "bytes.tsv is no table"),
    "names for a table": ("tune gap.csv --class-names n.csv", "gap.csv names its classes itself"),
    "export onto something": ("export out/tuned --out photos", "photos is there already"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_in_one_sentence_and_exit_code_1(
    mistake: str,
    home: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    make_folder(tmp_path / "broken", images=4)
    for name in ("red", "green", "dark-blue"):
        (tmp_path / "broken" / name / "broken.png").write_bytes(b"\x89PNG of nothing")
    (tmp_path / "empty" / "red").mkdir(parents=True)
    (tmp_path / "a_file").touch()
    (tmp_path / "column.csv").write_text("file,words\na.png,a cat\n")
    (tmp_path / "gap.csv").write_text("file,captions\na.png,\nb.png,a dog\n")
    (tmp_path / "bytes.tsv").write_bytes(b"\xff\xfe\x00")
    for name in ("corrupt", "no_json"):
        for suffix in (".safetensors", ".json"):
            shutil.copyfile(tmp_path / "out" / f"tuned{suffix}", tmp_path / f"{name}{suffix}")
    with (tmp_path / "corrupt.safetensors").open("r+b") as file:
        file.truncate(1000)
    (tmp_path / "no_json.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)

    command, sentence = MISTAKES[mistake]
    assert main(command.split()) == 1
    told = capsys.readouterr()
    assert told.err.startswith("radapter-lite: ") and sentence in told.err and told.err.count("\n") == 1
    after = sorted(tmp_path.rglob("*"))
    assert [path for path in after if path.is_file()] == [path for path in before if path.is_file()]
    assert not (tmp_path / "new").exists() and "Errno" not in told.err
    assert Delta.load(tmp_path / "out" / "tuned").tensors  # which is damaged if it was written over


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (["flip", "no"], "flip takes True or False, not 'no'"),
        (["lr", "fast"], "lr takes a number, not 'fast'"),
        (["lr", "true"], "lr takes a number, not True"),
        (["rank", "[4]"], "rank takes a whole number or None, not [4]"),
        (["towers", "image"], "towers takes texts in a tuple"),
        (["precision", "16"], "precision takes a text, not 16"),
        (["momentum", "none"], "momentum takes a number, not None"),
    ],
)
def test_a_setting_of_another_type_is_answered_in_a_sentence(home, setting, sentence, capsys, tmp_path):
    code = main(["tune", str(home / "photos"), "--out", str(tmp_path / "out"), "--set", *setting])
    assert code == 1 and sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_false_is_false_on_the_command_line():
    from radapter_lite.commands.options import parse_value

    assert [parse_value(text) for text in ("false", "True", "none", "3", "photo")] == [False, True, None, 3, "photo"]


def test_an_edited_file_of_prompts_is_another_run(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "prompts.txt"
    for text in ("a photo of a {}\n", "a sketch of a {}\n"):
        prompts.write_text(text)
        assert main(["tune", str(home / "photos"), "--shots", "1", "--prompt", str(prompts), *SHORT]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 2
