"""The training loop: reproducible, resumable, and clear about what it refuses."""

import itertools
import math
from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import make_backbone, make_folder
from torch import nn

from radapter_lite.data import load_images
from radapter_lite.methods.registry import trainer
from radapter_lite.tasks import as_task
from radapter_lite.training import TrainingConfig, augment, learning_rate, train

CONFIG = TrainingConfig(epochs=4, batch_size=5, lr=0.05, warmup_steps=2, weight_decay=0.01)  # 12 steps


@dataclass(frozen=True)
class Settings:
    """What a method might be set by."""

    training: TrainingConfig
    rank: int | None = None


class Head(nn.Module):
    """Something small to train: colours to classes, with a running average as adapters have one."""

    def __init__(self):
        super().__init__()
        self.linear = nn.utils.skip_init(nn.Linear, 3, 3)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("average", torch.zeros(3, 3))

    def loss(self, batch):
        return F.cross_entropy(self.linear(F.dropout(batch.images.mean((2, 3)), 0.3)), batch.labels)

    def accumulate(self):
        self.average.lerp_(self.linear.weight.detach(), 0.1)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(make_folder(tmp_path_factory.mktemp("training"))).few_shot(5)  # 3 x 5


def run(images, config=CONFIG, *, fail_after=None, **options):
    head = Head()
    steps = 0

    def after_step():
        nonlocal steps
        steps += 1
        head.accumulate()
        if steps == fail_after:
            raise KeyboardInterrupt

    loop = trainer(
        options.pop("method", "a head"),
        make_backbone(),
        as_task(images),
        Settings(config, options.pop("rank", None)),
        options.pop("checkpoint", None),
    )
    history = loop(options.pop("loss", head.loss), head.parameters(), after_step=after_step, head=head)
    assert not options
    return head.state_dict(), history


def assert_same(found, expected):
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], expected[0][name]) for name in found[0])
    pd.testing.assert_frame_equal(
        found[1].drop(columns="seconds"), expected[1].drop(columns="seconds"), check_exact=True
    )


# --- reproducible ---


def test_a_seed_decides_every_bit(images):
    torch.manual_seed(1)
    first = run(images)
    torch.manual_seed(2)  # the caller's random numbers have no part in it
    assert_same(run(images), first)
    other = run(images, TrainingConfig(**(vars(CONFIG) | {"seed": 1})))
    assert not torch.equal(other[0]["linear.weight"], first[0]["linear.weight"])


def test_the_callers_random_numbers_are_left_alone(images):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run(images)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(KeyboardInterrupt):
        run(images, fail_after=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_history_has_a_row_a_step(images):
    history = run(images)[1]
    assert list(history.columns) == ["step", "epoch", "loss", "lr", "seconds"]
    assert history["step"].tolist() == list(range(12))
    assert history["epoch"].tolist() == [epoch for epoch in range(4) for _ in range(3)]
    assert history["lr"].tolist() == [learning_rate(step, 12, CONFIG) for step in range(12)]
    assert history["seconds"].is_monotonic_increasing
    assert history["loss"].tail(3).mean() < history["loss"].head(3).mean() == pytest.approx(math.log(3), rel=0.1)


# --- resumable ---


@pytest.mark.parametrize("fail_after", [2, 3, 7, 12])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(images, tmp_path, fail_after):
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        run(images, fail_after=fail_after, checkpoint=checkpoint)
    assert checkpoint.exists() == (fail_after > 3)  # it is written once an epoch is whole
    assert_same(run(images, checkpoint=checkpoint), run(images))
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("fail_after", range(1, 12))
def test_a_run_killed_within_an_epoch_ends_in_the_same_bits(images, tmp_path, fail_after):
    often = replace(CONFIG, save_every=2)
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        run(images, often, fail_after=fail_after, checkpoint=checkpoint)
    assert checkpoint.exists() == (fail_after > 2)
    assert_same(run(images, often, checkpoint=checkpoint), run(images))  # how often it was saved is no matter


def numbers(count):
    """A stream that draws its batches from torch's random numbers as it goes."""
    return (torch.rand(4, 3) for _ in range(count))


class Stream:
    """Batches of unknown number, anew each time they are gone through."""

    def __iter__(self):
        return numbers(5)


def go_through(batches, config, **options):
    head = Head()
    history = train(
        batches,
        lambda batch: F.cross_entropy(head.linear(batch), torch.tensor([0, 1, 2, 0])),
        head.parameters(),
        config,
        state={"head": head},
        **options,
    )
    return head.state_dict(), history


def test_any_iterable_of_batches_will_do():
    pixels = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    as_list = go_through(list(pixels.split(4)), CONFIG)
    loader = torch.utils.data.DataLoader(pixels, batch_size=4)
    assert_same(go_through(loader, CONFIG), as_list)
    assert len(as_list[1]) == 4 * 3


@pytest.mark.parametrize("killed_at", [3, 5, 7])
def test_a_stream_trains_for_a_number_of_steps_and_resumes(tmp_path, killed_at):
    config = replace(CONFIG, steps=9, save_every=1)
    whole = go_through(Stream(), config)
    assert whole[1]["epoch"].tolist() == [0] * 5 + [1] * 4
    steps = itertools.count(1)

    def stop():
        if next(steps) == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_through(Stream(), config, after_step=stop, checkpoint=tmp_path / "run.pt")
    assert_same(go_through(Stream(), config, checkpoint=tmp_path / "run.pt"), whole)


@pytest.mark.parametrize(
    ("batches", "config", "sentence"),
    [
        (Stream(), CONFIG, "how many batches there are is not known: set TrainingConfig's steps"),
        ([], CONFIG, "there is no batch to train on"),
        (numbers(3), replace(CONFIG, steps=9), "the batches gave nothing in epoch 1"),
    ],
)
def test_batches_that_do_not_suffice_are_refused(batches, config, sentence):
    with pytest.raises(ValueError, match=sentence):
        go_through(batches, config)


def test_other_devices_random_numbers_are_left_alone(monkeypatch):
    def never(*_):
        raise AssertionError("the random numbers of all devices were set")

    for name in ("torch.manual_seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"):
        monkeypatch.setattr(name, never)
    go_through(Stream(), replace(CONFIG, steps=3))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("epochs", 2.5), ("epochs", 0), ("batch_size", True), ("batch_size", -1), ("steps", 0)],
        *[("lr", float("nan")), ("lr", 0), ("lr", "fast"), ("weight_decay", -1), ("warmup_steps", 1.5)],
        *[("seed", -1), ("clip_norm", float("inf")), ("save_every", 0), ("min_lr", -1e-6)],
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must be a (whole )?number .*, not {value!r}$"):
        TrainingConfig(**{setting: value})


def test_a_run_that_was_finished_is_not_run_again(images, tmp_path):
    finished = run(images, checkpoint=tmp_path / "run.pt")

    def never(*_):
        raise AssertionError

    assert_same(run(images, loss=never, checkpoint=tmp_path / "run.pt"), finished)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(config=TrainingConfig(**(vars(CONFIG) | {"lr": 0.01}))), "with lr=0.05, this one has 0.01"),
        (dict(config=TrainingConfig(**(vars(CONFIG) | {"seed": 5}))), "with seed=0, this one has 5"),
        (dict(rank=4), "with rank=None, this one has 4"),
        (dict(method="P-tuning"), "with method=CoOp, this one has P-tuning"),
        ("other images", "with files=[0-9a-f]+, this one has [0-9a-f]+"),
        ("fewer images", "with images=15, this one has 12"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(images, tmp_path, change, sentence):
    checkpoint = tmp_path / "run.pt"
    own = {"method": "CoOp"}
    run(images, checkpoint=checkpoint, **own)
    if isinstance(change, str):  # 8 images a class hold 5 to train with, so others of them are the tested ones
        rows = [0, 1, 2, 3] * 3 if change == "fewer images" else [1, 0, 2, 3, 4]
        rows = [5 * (i // 4) + row for i, row in enumerate(rows)] if len(rows) == 12 else [*rows, *range(5, 15)]
        images, change = images.take(rows), {}
    with pytest.raises(ValueError, match=f"run.pt is of a run {sentence}: remove the file to start anew"):
        run(images, **(own | change), checkpoint=checkpoint)


def test_a_checkpoint_fits_the_same_folder_however_it_is_named(tmp_path, monkeypatch):
    make_folder(tmp_path / "shapes")
    monkeypatch.chdir(tmp_path)
    finished = run(load_images("shapes").few_shot(5), checkpoint="run.pt")
    again = run(load_images(tmp_path / "shapes").few_shot(5), checkpoint="run.pt")
    assert again[1]["seconds"].tolist() == finished[1]["seconds"].tolist()  # nothing was run again


def test_a_checkpoint_of_another_device_is_read(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        finished = run(images, checkpoint=tmp_path / "run.pt")
    assert_same(run(images, checkpoint=tmp_path / "run.pt"), finished)


@pytest.mark.parametrize("damage", ["cut short", "empty", "text", "something else"])
def test_a_damaged_checkpoint_is_said_so(images, tmp_path, damage):
    checkpoint = tmp_path / "run.pt"
    run(images, checkpoint=checkpoint)
    whole = checkpoint.read_bytes()
    if damage == "something else":
        torch.save({"weight": torch.zeros(2)}, checkpoint)
    else:
        checkpoint.write_bytes({"cut short": whole[: len(whole) // 2], "empty": b"", "text": b"hello\n"}[damage])
    with pytest.raises(ValueError, match="run.pt is damaged or no checkpoint of a training: remove the file"):
        run(images, checkpoint=checkpoint)


# --- refused ---


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(images, value):
    head = Head()
    calls = itertools.chain([1.0, 1.0, value], itertools.repeat(1.0))  # losses are read some steps later
    with pytest.raises(ValueError, match=rf"the loss became {value} at step 2: lower lr \(0.05\) or clip_norm"):
        run(images, loss=lambda *batch: head.loss(*batch) * next(calls))


@pytest.mark.parametrize("name", ["epochs", "batch_size", "lr", "clip_norm", "crop"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must .*not 0"):
        TrainingConfig(**{name: 0})


# --- the schedule ---


def test_the_rate_warms_up_and_falls_along_a_cosine():
    config = TrainingConfig(lr=1.0, warmup_steps=4, min_lr=0.1)
    rates = [learning_rate(step, 25, config) for step in range(25)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(21)]
    assert rates[4:] == pytest.approx(expected)
    assert rates[14] == pytest.approx(0.55) and rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0, 1, 3, 100])
@pytest.mark.parametrize("total", [1, 2, 4])
def test_the_rate_of_a_short_run_is_a_rate(warmup, total):
    config = TrainingConfig(lr=1.0, warmup_steps=warmup, min_lr=0.1)
    assert all(0.1 <= learning_rate(step, total, config) <= 1.0 for step in range(total))


# --- augmentation ---


def test_without_crop_and_flip_images_stay_as_they_are():
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(augment(images, 1.0, False), images, rtol=0, atol=1e-5)


def test_half_of_the_images_are_mirrored():
    torch.manual_seed(0)
    images = torch.randn(200, 3, 8, 8)
    changed = augment(images, 1.0, True)
    as_they_were = (changed - images).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (changed - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (as_they_were ^ mirrored).all() and 70 < mirrored.sum() < 130


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_crops_lie_inside_the_image_and_have_its_shape(size):
    torch.manual_seed(0)
    height, width = size
    ramp = torch.linspace(-1, 1, width).expand(64, 3, height, width).contiguous()  # a pixel's value is its place
    cropped = augment(ramp, 0.5, False)
    assert cropped.shape == ramp.shape
    left, right = cropped[:, 0, 0, 0], cropped[:, 0, 0, -1]
    assert left.min() >= -1 - 1e-5 and right.max() <= 1 + 1e-5
    share = (right - left) / 2
    assert share.min() > 0.45 and share.max() <= 1 + 1e-5 and share.std() > 0.1
    assert left.std() > 0.1  # not only the middle
