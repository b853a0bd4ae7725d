"""The scripts that made the assets: what interrupts, resumes and ends a pretraining, on a corpus of 24 icons."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

PRETRAIN = Path(__file__).parent.parent / "pretrain"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pretrain_{name}", PRETRAIN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "sets").mkdir()
    for name, shape in (("ink", (12, 48, 48)), ("colour", (12, 48, 48, 4))):
        np.savez(tmp_path / "sets" / f"{name}.npz", images=rng.integers(0, 256, shape, dtype=np.uint8))
    names = ["cat", "dog"] * 12
    table = pd.DataFrame({"set": ["ink"] * 12 + ["colour"] * 12, "row": [*range(12)] * 2, "caption": names})
    table["colour"], table["kept"] = table["set"] == "colour", True
    table.assign(captions=[json.dumps([name]) for name in names]).to_csv(tmp_path / "corpus.csv")
    return tmp_path


@pytest.fixture
def pretrain(build: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("pretrain")
    monkeypatch.setattr(module, "WEIGHTS", build / "weights.safetensors")
    monkeypatch.setattr(module, "CURVE", build / "curve.json")
    monkeypatch.setattr(module, "FOCUS_STEPS", 1)
    return module


def run(module: ModuleType, build: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    arguments = ["pretrain.py", "--build", str(build), "--steps", "1", "--batch", "4", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    module.main()


def test_the_assets_are_written_once_at_the_end(pretrain, build, monkeypatch):
    loss, calls = pretrain.contrastive_loss, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(pretrain, "contrastive_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(pretrain, build, monkeypatch)
    assert (build / "pretrain.pt").is_file()
    assert not pretrain.WEIGHTS.exists() and not pretrain.CURVE.exists()
    for options, sentence in (
        (("--seed", "3"), "pretrain.pt is of a run with seed=0, this one has 3: remove the file to start anew"),
        (("--steps", "2"), "with steps=1, this one has 2"),
        (("--lr", "0.1"), "with lr=0.0015, this one has 0.1"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            run(pretrain, build, monkeypatch, *options)
    run(pretrain, build, monkeypatch)
    assert len(calls) == 3  # the first step was not made again
    assert pretrain.WEIGHTS.is_file() and json.loads(pretrain.CURVE.read_text())["images"] == 8
    (build / "plain").open("w").close()
    assert pretrain.WEIGHTS.stat().st_mode == (build / "plain").stat().st_mode


def test_a_checkpoint_of_another_corpus_is_refused(pretrain, build):
    args = SimpleNamespace(build=build, steps=1, batch=4, lr=1e-3, seed=0)
    torch.save({"run": pretrain.identity(args)}, build / "pretrain.pt")
    assert pretrain.read_checkpoint(build / "pretrain.pt", pretrain.identity(args))
    with (build / "corpus.csv").open("a") as file:
        file.write("24,ink,5,bird,False,True,[]\n")
    with pytest.raises(SystemExit, match="is of a run with corpus=[0-9a-f]+, this one has [0-9a-f]+"):
        pretrain.read_checkpoint(build / "pretrain.pt", pretrain.identity(args))
    torch.save({"step": 200}, build / "pretrain.pt")  # as they were before runs had an identity
    with pytest.raises(SystemExit, match="is of a run with steps=None, this one has 1"):
        pretrain.read_checkpoint(build / "pretrain.pt", pretrain.identity(args))


def test_the_benchmark_is_built_on_python_3_10(monkeypatch):
    stand_in = ModuleType("tomli")
    monkeypatch.syspath_prepend(str(PRETRAIN))
    monkeypatch.setitem(sys.modules, "tomli", stand_in)
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert load("build_benchmark").tomllib is stand_in


def test_the_shipped_sample_is_the_one_that_its_seed_draws(monkeypatch):
    """Drawing it needs the corpus's list alone; rendering it would need the icon sets."""
    monkeypatch.syspath_prepend(str(PRETRAIN))
    monkeypatch.setitem(sys.modules, "resvg_py", ModuleType("resvg_py"))
    sample = load("corpus_sample")
    corpus, drawn = sample.draw(seed=0)
    with zipfile.ZipFile(sample.CORPUS_SAMPLE) as archive:
        shipped = pd.read_csv(archive.open("icons.csv"), keep_default_na=False)
    assert len(corpus) == 155_507 and drawn[["set", "icon"]].equals(shipped[["set", "icon"]])
    assert not drawn["icon"].equals(sample.draw(seed=1)[1]["icon"])
