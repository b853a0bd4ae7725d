"""Several processes train as one: the same numbers, whoever dies, in any precision, and with the backbone in shards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_backbone, make_folder

from radapter_lite import processes
from radapter_lite.data import load_images
from radapter_lite.methods import tune

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
    return tuned.history["loss"].tolist(), tuned.delta.tensors if tuned.has_alpha else tuned.tensors


def run_all(job):
    """In each process: all runs, and one that goes on from what one process began."""
    torch.set_num_threads(1)
    folder, out = job
    found = {name: run(name, folder) for name in RUNS}
    found["resumed"] = run("R-Adapter", folder, checkpoint=out / "one.pt")
    refused = [("adversarial", 0.1), ("drop", "path")]
    found["refused"] = [str(pytest.raises(ValueError, run, "R-Adapter", folder, **{k: v}).value) for k, v in refused]
    torch.save(found, out / f"{processes.rank()}.pt")


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
        torch.testing.assert_close(given, tensor, rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}")


# --- the same numbers ---


@pytest.mark.parametrize("name", [name for name in RUNS if "float" not in name])
def test_two_processes_give_the_numbers_of_one(alone, two, name):
    assert_close(two[0][name], alone[name])
    assert alone[name][0][0] > 0.01 and max(each.abs().max() for each in alone[name][1].values()) > 1e-3


@pytest.mark.parametrize("name", [*RUNS, "resumed"])
def test_both_processes_end_in_the_same_bits(two, name):
    assert_close(two[1][name], two[0][name], 0)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_narrow_precision_stays_near_float32(alone, two, name):
    for found in (alone[name], two[0][name]):
        assert found[0] != alone["R-Adapter"][0]
        assert found[0] == pytest.approx(alone["R-Adapter"][0], rel=0.02)


def test_what_looks_across_a_batch_is_refused(two):
    tricks, drop = two[0]["refused"]
    assert tricks.startswith("mixup, adversarial and r_drop look across the images of a batch")
    assert drop.startswith("drop='path' draws for each image, and several processes divide the images: set drop to")


# --- whoever dies ---


def test_two_processes_go_on_from_where_one_was_interrupted(alone, two):
    assert_close(two[0]["resumed"], alone["R-Adapter"])


def test_a_killed_process_ends_the_run_and_one_goes_on(alone, folder, tmp_path):
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(ChildProcessError, match=r"process \d of 2 ended .*goes on from the last state that was saved"):
        processes.launch(die, (folder, checkpoint), 2, cpu=True)
    assert len(torch.load(checkpoint)["history"]) == KILLED_AFTER
    assert_close(run("R-Adapter", folder, checkpoint=checkpoint), alone["R-Adapter"])
