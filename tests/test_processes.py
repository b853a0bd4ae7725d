"""Several processes train as one: the same numbers, whoever dies, in any precision, and with the backbone in shards."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_backbone, make_folder
from safetensors.torch import load_file

from radapter_lite import cli, processes
from radapter_lite.adapter import AdapterConfig
from radapter_lite.assets import ASSETS
from radapter_lite.data import load_images
from radapter_lite.memory import estimate
from radapter_lite.methods import r_adapter, tune

# 15 images in batches of 7, 7 and 1: no two processes divide them evenly, and the last gives both the same image.
SETTINGS = {"epochs": 2, "batch_size": 7, "lr": 3e-3, "warmup_steps": 2, "precision": "float32", "seed": 3}
ADAPTER = {"momentum": 0.5, "drop_prob": 0.3}
RUNS = {
    "R-Adapter": ("R-Adapter", ADAPTER | {"whitening": 0.01}),
    "R-Adapter, stem": ("R-Adapter, stem", ADAPTER),
    "FLYP": ("FLYP", {"lr": 1e-3}),
    "LoRA": ("LoRA", {}),
    "LP-FT": ("LP-FT", {}),
    "CoOp": ("CoOp", {"init_text": None}),
    "prefix tuning": ("prefix tuning", {}),
    "bfloat16": ("R-Adapter", ADAPTER | {"precision": "bfloat16"}),
    "float16": ("R-Adapter", ADAPTER | {"precision": "float16"}),
}
KILLED_AFTER = 4  # steps of 6, of which 2 were saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("processes") / "shapes")


def run(name, folder, **more):
    """Losses, and what was learned."""
    method, settings = RUNS[name]
    settings = SETTINGS | settings | ({} if method == "LP-FT" else {"temperature": 0.1})
    checkpoint = more.pop("checkpoint", None)
    tuned = tune(make_backbone(), load_images(folder).few_shot(5), method, checkpoint=checkpoint, **settings | more)
    return tuned.history["loss"].tolist(), getattr(tuned.learned, "tensors", tuned.learned)


def run_all(job):
    """In each process: all runs, and one that goes on from what one process began."""
    torch.set_num_threads(1)
    folder, out = job
    found = {name: run(name, folder) for name in RUNS}
    found["resumed"] = run("R-Adapter", folder, checkpoint=out / "one.pt")
    found["refused"] = [refused("R-Adapter", folder, adversarial=0.1), refused("R-Adapter", folder, drop="path")]
    # The environment that `accelerate launch` makes of the configuration that ships.
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    found["refused"] += [refused("FLYP", folder), refused("R-Adapter, stem", folder)]
    with pytest.MonkeyPatch.context() as patch:
        held = patch_attach(patch)
        found["in shards"] = run("R-Adapter", folder)
    found["held"] = held
    torch.save(found, out / f"{processes.rank()}.pt")


def refused(name, folder, **more):
    return str(pytest.raises(ValueError, run, name, folder, **more).value)


def patch_attach(patch):
    """Bytes of the weights that this process holds, the adapters' among them, in a list that fills as it trains."""
    held, attach = [], r_adapter.attach

    def noting(backbone, *others):
        adapters = attach(backbone, *others)
        tensors = [each for own in (backbone.model, adapters) for each in [*own.parameters(), *own.buffers()]]
        held.append(sum(getattr(each, "_local_tensor", each).nbytes for each in tensors))
        return adapters

    patch.setattr(r_adapter, "attach", noting)
    return held


def die(job):
    """In each process: a run whose second process kills itself."""
    torch.set_num_threads(1)
    folder, checkpoint = job
    interrupt(lambda: os.kill(os.getpid(), signal.SIGKILL) if processes.rank() == 1 else None)
    run("R-Adapter", folder, checkpoint=checkpoint, save_every=2)


def interrupt(how):
    """Call `how` at the beginning of step KILLED_AFTER."""
    from radapter_lite import training

    step = training._step
    training._step = lambda *own: (how() if own[-2] == KILLED_AFTER else None, step(*own))[1]
    return step


@pytest.fixture(scope="module")
def alone(folder):
    return {name: run(name, folder) for name in RUNS}


@pytest.fixture(scope="module")
def two(folder, tmp_path_factory):
    """What each of two processes found."""
    out = tmp_path_factory.mktemp("two")

    def stop():
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        from radapter_lite import training

        patch.setattr(training, "_step", training._step)
        interrupt(stop)
        with pytest.raises(KeyboardInterrupt):
            run("R-Adapter", folder, checkpoint=out / "one.pt", save_every=2)
    processes.launch(run_all, (folder, out), 2, cpu=True)
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


def assert_close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(expected[0]), rtol=0, atol=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        given = found[1][name]
        if name.endswith("in_proj_bias"):  # a key's bias has no gradient but rounding, which Adam makes a step of
            tensor, given = tensor.unflatten(0, (3, -1))[::2], given.unflatten(0, (3, -1))[::2]
        torch.testing.assert_close(given, tensor, rtol=0, atol=tolerance)


# --- the same numbers ---


@pytest.mark.parametrize("name", [name for name in RUNS if "float" not in name])
def test_two_processes_give_the_numbers_of_one(alone, two, name):
    assert_close(two[0][name], alone[name])
    assert alone[name][0][0] > 0.01 and max(each.abs().max() for each in alone[name][1].values()) > 1e-3


@pytest.mark.parametrize("name", [*RUNS, "resumed", "in shards"])
def test_both_processes_end_in_the_same_bits(two, name):
    assert_close(two[1][name], two[0][name], 0)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_narrow_precision_stays_near_float32(alone, two, name):
    for found in (alone[name], two[0][name]):
        assert found[0] != alone["R-Adapter"][0]
        assert found[0] == pytest.approx(alone["R-Adapter"][0], rel=0.02)


def test_what_looks_across_a_batch_is_refused(two):
    tricks, drop, weights, stem = two[0]["refused"]
    assert tricks.startswith("mixup, adversarial and r_drop need whole batches, which processes divide")
    assert drop.startswith("drop='path' draws for each image, which processes divide: set it to 'adapter'")
    assert weights.startswith("FLYP does not train on a backbone in shards") and stem.startswith("stem_lr trains the")


# --- whoever dies ---


def test_two_processes_go_on_from_where_one_was_interrupted(alone, two):
    assert_close(two[0]["resumed"], alone["R-Adapter"])


def test_a_killed_process_ends_the_run_and_one_goes_on(alone, folder, tmp_path):
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(
        ChildProcessError, match=r"^process \d of 2 ended \(.*\): start it again, with any number of processes, and it"
    ):
        processes.launch(die, (folder, checkpoint), 2, cpu=True)
    assert len(torch.load(checkpoint)["place"][0]) == KILLED_AFTER
    assert_close(run("R-Adapter", folder, checkpoint=checkpoint), alone["R-Adapter"])


# --- in shards ---


def test_a_backbone_in_shards_gives_the_numbers_of_a_whole_one(alone, two):
    assert_close(two[0]["in shards"], alone["R-Adapter"])
    adapter = AdapterConfig(rank=4, whitening=0.01)
    expected = [estimate(make_backbone().model, adapter, processes=n, sharding="FSDP")["weights"] for n in (1, 2)]
    assert two[0]["held"] == [pytest.approx(expected[1], rel=0.01)] and expected[1] < 0.8 * expected[0]


# --- every way to start them ---

TUNE = ["--set", "epochs", "3", "--set", "precision", "float32", "--set", "momentum", "0.3", "--shots", "4"]


@pytest.fixture(scope="module")
def tuned_by_one(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    assert cli.main(["tune", str(folder), "--out", str(out), *TUNE]) == 0
    return out


def assert_same_results(found, expected):
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    tensors = [load_file(out / "tuned.safetensors") for out in (found, expected)]
    assert tensors[0].keys() == tensors[1].keys()
    found, expected = (torch.cat([each.flatten() for each in own.values()]) for own in tensors)
    # A few gradients are near Adam's 1e-8, where rounding turns into a part of a step.
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_the_terminal_starts_processes(folder, tuned_by_one, tmp_path, capfd):
    assert cli.main(["tune", str(folder), "--out", str(tmp_path / "out"), *TUNE, "--processes", "2"]) == 0
    printed = capfd.readouterr()
    assert printed.out.count("Tuning picto by R-Adapter on 12 images") == 1
    assert_same_results(tmp_path / "out", tuned_by_one)


def test_a_mistake_is_told_once(folder, tmp_path, capfd):
    assert cli.main(["tune", str(folder), "--id", "paintings", "--processes", "2"]) == 1
    assert capfd.readouterr().err.count("paintings") == 1
    assert cli.main(["tune", str(folder), "--processes", "0"]) == 1
    assert "--processes was given 0: expected 1 or more" in capfd.readouterr().err


def test_accelerate_launch_starts_them_in_shards(folder, tuned_by_one, tmp_path):
    start = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    start += ["--config_file", str(ASSETS / "accelerate" / "fsdp.yaml"), "--mixed_precision", "fp16"]
    command = [*start, "-m", "radapter_lite.cli", "tune", str(folder), "--out", str(tmp_path / "out"), *TUNE]
    subprocess.run(command, check=True, timeout=200)
    assert_same_results(tmp_path / "out", tuned_by_one)  # float32, as its own settings say


def test_accelerates_precision_is_taken(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert cli.main(["tune", str(folder), "--out", str(tmp_path), *TUNE[:3], *TUNE[6:]]) == 0
    assert json.loads((tmp_path / "tuned.json").read_text())["settings"]["training"]["precision"] == "float16"


NOTEBOOK = """
import sys, torch
from accelerate import notebook_launcher
from accelerate.utils.other import get_free_port
from test_processes import processes, run

def train(folder, out):
    found = run("R-Adapter", folder)
    if processes.rank() == 0:
        torch.save((processes.count(), found), out)

torch.set_num_threads(1)
notebook_launcher(train, sys.argv[1:], num_processes=2, use_port=str(get_free_port()))
"""


def test_notebook_launcher_starts_them(folder, alone, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", NOTEBOOK, str(folder), str(tmp_path / "found.pt")]
    subprocess.run(command, check=True, env=environment, timeout=200)
    number, found = torch.load(tmp_path / "found.pt")
    assert number == 2
    assert_close(found, alone["R-Adapter"])
