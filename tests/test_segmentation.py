"""Segmentation: exact masks, scenes that can be drawn again, an independent IoU, and pictures of one's own."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import fill, make_backbone, make_folder
from PIL import Image, ImageDraw

from radapter_lite import Segmentation, evaluate, load_images, predict, segment, sweep, tune
from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.app.page import Page
from radapter_lite.bench import base_to_novel as bench
from radapter_lite.cli import main
from radapter_lite.data import ImageSet
from radapter_lite.data.scenes import Scene, crop, draw_scenes, iou, proposals
from radapter_lite.methods import METHODS
from radapter_lite.settings import with_settings
from radapter_lite.tasks.segmentation import class_ious
from radapter_lite.tuned import Tuned
from radapter_lite.view.segmentation import overlay

NAMES = ["disc", "ring", "square"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Drawings on white in two styles, eight of each class and style."""
    root = tmp_path_factory.mktemp("drawings")
    for style, colour in (("ink", "black"), ("paint", "blue")):
        for name in NAMES:
            (root / style / name).mkdir(parents=True)
            for number in range(8):
                drawing = Image.new("RGB", (48, 48), "white")
                box = (6 + number % 3, 6, 40, 40)
                if name == "square":
                    ImageDraw.Draw(drawing).rectangle(box, fill=colour)
                else:
                    ImageDraw.Draw(drawing).ellipse(
                        box, fill=colour if name == "disc" else None, outline=colour, width=4
                    )
                drawing.save(root / style / name / f"{number}.png")
    return load_images(root, id_domain="ink")


@pytest.fixture(scope="module")
def scenes(images: ImageSet) -> list[Scene]:
    return draw_scenes(images.test, 3)


@pytest.fixture(scope="module")
def task(scenes: list[Scene], images: ImageSet) -> Segmentation:
    return Segmentation.of(scenes, images.classes, make_backbone().temperature)


# --- scenes ---


def test_masks_are_what_the_ink_changed_or_encloses(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_scenes(images.test.select(domain="ink"), 6)
    blank = draw_scenes(
        replace(images.test.select(domain="ink"), _read=lambda _: Image.new("RGB", (48, 48), "white")), 6
    )
    for scene, ground in zip(drawn, blank, strict=True):
        changed = np.abs(scene.image.astype(int) - ground.image).max(2) > 0.2 * ground.image.min(2)
        assert not (changed & (scene.mask < 0)).any()
        assert (scene.objects.sum(0) <= 1).all()
        for thing, label in zip(scene.objects, scene.labels, strict=True):
            rows, columns = np.nonzero(thing)
            side = rows.max() - rows.min() + 1
            full = thing.sum() / (side * (columns.max() - columns.min() + 1))
            assert full == pytest.approx(1 if NAMES[label] == "square" else np.pi / 4, abs=0.06)  # a ring is filled
        assert set(np.unique(scene.mask)) == {-1, *scene.labels.tolist()}


def test_scenes_come_again_and_their_number_changes_none(images: ImageSet) -> None:
    first, again = draw_scenes(images.test, 2, seed=3), draw_scenes(images.test, 5, seed=3)
    kept = [scene for domain in images.domains for scene in again if scene.domain == domain]
    for one, other in zip(first, kept[:2] + kept[5:7], strict=True):
        assert np.array_equal(one.image, other.image) and one.files == other.files and one.domain == other.domain
    assert not np.array_equal(first[0].image, draw_scenes(images.test, 1, seed=4)[0].image)
    assert {len(scene.labels) for scene in again} <= {3, 4}


def test_no_design_is_in_two_splits_and_each_is_drawn_once_before_one_is_drawn_again(images: ImageSet) -> None:
    own = images.select(domain="ink")
    designs = {}
    for split in ("train", "validation", "test"):
        files = [file for scene in draw_scenes(own.select(split=split), 4) for file in scene.files]
        designs[split] = set(files)
        assert designs[split] <= set(own.table["file"][own.table["split"] == split])
        known = len(own.select(split=split))
        assert len(set(files[:known])) == min(known, len(files[:known]))
    assert not designs["train"] & designs["test"] and not designs["train"] & designs["validation"]


# --- regions ---


def test_most_objects_have_a_proposal(scenes: list[Scene]) -> None:
    best = [max(iou(thing, region) for region in proposals(scene.image)) for scene in scenes for thing in scene.objects]
    assert np.mean(np.array(best) > 0.5) > 0.9


@pytest.mark.parametrize("size", [(1, 1), (48, 48), (300, 20), (200, 500)])
def test_any_picture_has_a_region_of_its_size(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for image in (np.zeros((*size, 3), np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)):
        regions = proposals(image)
        assert regions.dtype == bool and regions.shape[1:] == size and regions.any((1, 2)).all()


def test_a_crop_holds_the_region_and_no_ground() -> None:
    image = np.random.default_rng(0).integers(0, 200, (60, 80, 3), np.uint8)
    region = np.zeros((60, 80), bool)
    region[10:20, 50:80] = True
    square = np.asarray(crop(image, region))
    assert square.shape[0] == square.shape[1] == 30 + 2 * 6
    inside = (square != 255).any(2)
    assert np.array_equal(square[inside].reshape(10, 30, 3), image[10:20, 50:80]) and inside.sum() == region.sum()
    assert (np.asarray(crop(image, region, None)) != 255).any(2).sum() > region.sum()
    assert set(np.asarray(crop(image, region, (9, 8, 7)))[0, 0].tolist()) == {7, 8, 9}


# --- the task ---


def test_crops_are_an_image_set_that_is_tuned_on_as_any(task: Segmentation, images: ImageSet) -> None:
    table = task.images.table
    assert task.images.id_domain == "ink" and set(table["scene"]) == set(range(len(task.scenes)))
    fitting, classes = table[table["iou"] > 0.5], table["class"]
    for row in fitting.itertuples():
        scene = task.scenes[row.scene]
        truth = scene.mask[task.regions[row.scene][row.region]]
        assert images.classes[np.bincount(truth[truth >= 0]).argmax()] == classes[row.Index]
    again = pickle.loads(pickle.dumps(task.images))
    assert np.array_equal(np.asarray(again.image(0)), np.asarray(task.images.image(0)))
    training = Segmentation.of(draw_scenes(images.train.select(domain="ink"), 8), images.classes, 0.05, oracle=True)
    assert (training.images.table["iou"] == 1).all()
    few = training.images.only(NAMES[:2]).few_shot(2)
    tuned = tune(make_backbone(), few, epochs=2, lr=1e-3, momentum=0.5)
    swept = sweep(make_backbone(), tuned, replace(task, tuned_on=few.classes), (0.0, 1.0))
    assert {"miou", "tuned", "novel", "forgotten"} <= set(swept) and swept["domain"].tolist() == ["ink", "paint"] * 2


def test_the_score_is_an_iou_that_is_counted_by_hand(task: Segmentation) -> None:
    similarities = predict(make_backbone(), task)
    painted = task.paint(similarities)
    probabilities = (similarities / task.temperature).softmax(1)
    for number in range(len(task.scenes)):
        rows = np.flatnonzero(task.images.table["scene"] == number)
        for y, x in np.random.default_rng(number).integers(0, 144, (60, 2)):
            sums = sum(
                (probabilities[row] for row, region in zip(rows, task.regions[number], strict=True) if region[y, x]), 0
            )
            expected = -1 if isinstance(sums, int) or sums.max() <= task.threshold else int(sums.argmax())
            assert painted[number][y, x] == expected
    scores = evaluate(make_backbone(), task).set_index("domain")["miou"]
    for domain in ("ink", "paint"):
        own = [number for number, scene in enumerate(task.scenes) if scene.domain == domain]
        ious = []
        for label in range(len(NAMES)):
            true = {(n, *place) for n in own for place in np.argwhere(task.scenes[n].mask == label).tolist()}
            said = {(n, *place) for n in own for place in np.argwhere(painted[n] == label).tolist()}
            if true:
                ious.append(100 * len(true & said) / len(true | said))
        assert scores[domain] == pytest.approx(np.mean(ious))


def test_right_names_on_known_masks_score_100_and_the_threshold_leaves_ground(task: Segmentation) -> None:
    known = Segmentation.of(task.scenes, task.names, 0.05, oracle=True)
    right = torch.nn.functional.one_hot(known.images.labels, len(NAMES)).float()
    perfect = known.score(right, right)
    assert perfect["miou"].tolist() == [100, 100] and perfect["forgotten"].tolist() == [0, 0]
    assert perfect["images"].tolist() == [3, 3]
    empty = replace(known, threshold=10.0)
    assert all((mask == -1).all() for mask in empty.paint(right).values())
    assert empty.score(right)["miou"].tolist() == [0, 0]
    wrong = known.score(right.roll(1, 1), right)
    assert wrong["miou"].tolist() == [0, 0] and wrong["forgotten"].tolist() == [100, 100]


def test_classes_that_do_not_occur_do_not_count() -> None:
    truth, found = np.array([[0, 0, -1, 1]]), np.array([[0, 2, 2, 2]])
    ious = class_ious(found, truth, 4)
    assert ious[0] == 0.5 and ious[1] == 0 and np.isnan(ious[2]) and np.isnan(ious[3])


# --- one's own picture ---


def test_a_picture_is_painted_by_names_along_alpha(scenes: list[Scene]) -> None:
    clip = make_backbone()
    adapters = AdapterSet(clip.model, AdapterConfig())
    fill(adapters, 0.3)
    delta = adapters.delta(backbone=clip)
    adapters.remove()
    picture = Image.fromarray(scenes[0].image).resize((900, 800))
    start = segment(clip, picture, ["a cat", "a dog", "a car"])
    assert start.shape == (800, 900) and set(np.unique(start)) <= {-1, 0, 1, 2} and (start >= 0).any()
    made = Tuned(delta, pd.DataFrame(), 0)
    assert np.array_equal(segment(clip, picture, ["a cat", "a dog", "a car"], made, alpha=0.0), start)
    assert not np.array_equal(segment(clip, picture, ["a cat", "a dog", "a car"], made), start)


def test_bad_input_is_one_sentence(images: ImageSet, scenes: list[Scene]) -> None:
    image, region = scenes[0].image, scenes[0].objects[0]
    for sentence, mistake in (
        (
            "segmentation was given 1 class name: give two or more",
            lambda: segment(make_backbone(), Image.fromarray(image), ["a"]),
        ),
        (r"the mask has \(50, 144\) pixels and the picture \(144, 144\)", lambda: crop(image, region[:50])),
        ("the mask is empty", lambda: crop(image, np.zeros_like(region))),
        (r"the mask has \(50, 144\) pixels", lambda: overlay(image, scenes[0].mask[:50])),
        ("count must be a whole number of 1 or more scenes, not 0", lambda: draw_scenes(images, 0)),
        ("scenes are made of drawings on white", lambda: draw_scenes(load_images(id_domain="camera"), 1)),
    ):
        with pytest.raises(ValueError, match=sentence):
            mistake()


def test_an_overlay_colours_the_mask_alone(scenes: list[Scene]) -> None:
    shown = np.asarray(overlay(scenes[0].image, scenes[0].mask))
    same = (shown == scenes[0].image).all(2)
    assert same[scenes[0].mask < 0].all() and not same[scenes[0].mask >= 0].all()


def test_the_command_writes_a_picture_and_says_the_shares(scenes: list[Scene], tmp_path, capsys) -> None:
    Image.fromarray(scenes[0].image).save(tmp_path / "desk.png")
    assert main(["segment", str(tmp_path / "desk.png"), "--names", "square", "ring", "key"]) == 0
    told = capsys.readouterr().out
    assert "%; the rest, " in told and str(tmp_path / "desk_segments.png") in told
    assert Image.open(tmp_path / "desk_segments.png").size[0] > 400
    assert main(["segment", str(tmp_path / "desk.png"), "--names", "square"]) == 1
    assert "Type two class names or more" in capsys.readouterr().err
    assert main(["segment", str(tmp_path / "no.png"), "--names", "a", "b"]) == 1
    assert "no.png is no readable image" in capsys.readouterr().err


def test_the_page_paints_what_it_shows_and_follows_the_slider(tmp_path) -> None:
    clip = make_backbone()
    adapters = AdapterSet(clip.model, AdapterConfig())
    fill(adapters, 0.3)
    delta = adapters.delta()
    adapters.remove()
    photos = load_images(make_folder(tmp_path / "photos", ("photo", "sketch")), id_domain="photo")
    page = Page(clip, delta, photos, photos.classes)
    assert page.mask.value == ""
    page.segment.value = True
    seen = [page.mask.value]
    page.slider.value = 0.9
    seen.append(page.mask.value)
    assert "mask at α = 0.50" in seen[0] and "mask at α = 0.90" in seen[1]
    page.names.value = "<b>sky</b>, <b>sea</b>"
    assert "<b>s" not in page.mask.value and "&lt;b&gt;s" in page.mask.value
    page.examples[1].click()
    assert page.mask.value.count("role=") == 1
    page.segment.value = False
    assert page.mask.value == ""


# --- the bench ---


def test_the_bench_measures_both_kinds_of_masks(images: ImageSet, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bench, "TRAINING", 8)
    monkeypatch.setattr(bench, "TEST", 2)
    monkeypatch.setattr(bench, "VALIDATION", 1)
    monkeypatch.setattr(
        bench, "recommended", lambda name, *_: with_settings(METHODS[name].config, {"epochs": 1, "batch_size": 4})
    )
    path = tmp_path / "segmentation.csv"
    table = bench.run_segmentation(make_backbone(), images, path, ["FLYP"], seeds=2)
    rows = pd.read_csv(path)
    assert set(table["masks"]) == {"proposals", "oracle"} == set(rows["masks"])
    assert set(rows["alpha"]) == {0, 0.25, 0.4, 0.5, 0.75, 1} and {"miou", "tuned", "novel"} <= set(rows)
    assert set(rows["split"]) == {"test", "validation"}
    before = path.read_bytes()
    bench.run_segmentation(make_backbone(), images, path, ["FLYP"], seeds=2)
    assert path.read_bytes() == before


def test_slider_map_profile_and_rules_are_classifications_own(task: Segmentation) -> None:
    from radapter_lite.alpha_curve import AlphaCurve, layer_profile
    from radapter_lite.view.sliders import alpha_slider, encoder_map

    backbone = make_backbone()
    adapters = AdapterSet(backbone.model, AdapterConfig())
    fill(adapters, 0.3)
    delta = adapters.delta(backbone=backbone)
    adapters.remove()
    curve = AlphaCurve.measure(backbone, delta, task, nodes=3)
    slider = alpha_slider({"R-Adapter": curve}, task)
    before = slider.picture.value
    slider.slider.value = 1.0
    assert slider.picture.value != before
    assert encoder_map(curve, task, steps=3).table["id"].between(0, 100).all()
    assert layer_profile(backbone, delta, task)["id"].between(0, 100).all()
