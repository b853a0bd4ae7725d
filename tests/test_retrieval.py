"""Retrieval: recall both ways, ties by lot, several captions an image and several images a caption."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder

from radapter_lite import METHODS, AlphaCurve, ImageSet, Retrieval, evaluate, load_images, sweep, tune
from radapter_lite.alpha_curve import layer_profile
from radapter_lite.bench import retrieval as bench
from radapter_lite.data.table import checked
from radapter_lite.losses import mpm_nce
from radapter_lite.tasks.retrieval import recall, search
from radapter_lite.training import TrainingConfig
from radapter_lite.view.search_gallery import SHOWN, SearchGallery
from radapter_lite.view.sliders import alpha_slider

QUICK = {"epochs": 2, "batch_size": 8, "lr": 3e-3, "warmup_steps": 0, "precision": "float32", "seed": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    found = load_images(make_folder(tmp_path_factory.mktemp("retrieval") / "shapes", ("photo", "sketch"), 10))
    order = found.table.groupby(["class", "domain"]).cumcount()
    shared = found.table["class"] + " | a " + (order % 2).map({0: "first", 1: "second"}) + " shape"
    return ImageSet.from_table(
        found.table.assign(captions=shared.where(order % 3 > 0, found.table["class"])),
        read=found._read,
        classes=found.classes,
        id_domain="photo",
    )


@pytest.fixture(scope="module")
def task(images) -> Retrieval:
    return Retrieval.of(images)


def by_all_orders(similarities, right, k):
    """The share of orders, of all that agree with the similarities, that have a right one among the first k."""
    orders = [
        order
        for order in itertools.permutations(range(len(similarities)))
        if all(similarities[a] >= similarities[b] for a, b in itertools.pairwise(order))
    ]
    return float(np.mean([any(right[i] for i in order[:k]) for order in orders]))


@pytest.mark.parametrize("seed", range(8))
def test_ties_are_broken_by_lot(seed):
    rng = np.random.default_rng(seed)
    similarities = rng.integers(0, 3, (4, 6))
    right = rng.random((4, 6)) < 0.3
    right[range(4), rng.integers(0, 6, 4)] = True
    found = recall(torch.tensor(similarities).float(), torch.tensor(right).nonzero(), (1, 2, 3, 5))
    for row in range(4):
        for place, k in enumerate((1, 2, 3, 5)):
            expected = by_all_orders(similarities[row], right[row], k)
            assert found[row, place].item() == pytest.approx(expected), (row, k)


def test_a_search_by_blocks_is_the_search_at_once():
    generator = torch.Generator().manual_seed(0)
    f, g = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (70, 50))
    pairs = torch.cat([torch.stack([torch.arange(70), torch.arange(70) % 50], 1), torch.tensor([[3, 9], [60, 1]])])
    torch.testing.assert_close(search(f, g, pairs, at_once=800), recall(f @ g.T, pairs))
    torch.testing.assert_close(search(g, f, pairs.flip(1), at_once=30), recall(g @ f.T, pairs.flip(1)))


def test_recall_of_features_is_the_score_of_their_similarities(task):
    generator = torch.Generator().manual_seed(2)
    sizes = (len(task.images), len(task.names))
    f, g = (torch.nn.functional.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in sizes)
    pd.testing.assert_frame_equal(task.recall(f, g), task.score(f @ g.T))


def test_a_search_takes_the_memory_of_its_blocks():
    script = """
import resource, sys, torch
from radapter_lite.tasks.retrieval import search
n = 6000
f = torch.nn.functional.normalize(torch.randn(n, 8), dim=1)
pairs = torch.arange(n)[:, None].repeat(1, 2)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
search(f[:100], f[:100], pairs[:100])
before = peak()
found = search(f, f, pairs)
print(peak() - before, found[:, 0].mean().item())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    grown, right = map(float, done.stdout.split())
    assert grown < 80 and right > 0.99  # MB; all 6,000 x 6,000 similarities alone are 144


def test_the_score_ranks_within_each_domain(task):
    similarities = torch.randn(len(task.images), len(task.names), generator=torch.Generator().manual_seed(1))
    table = task.score(similarities, similarities)
    assert table["domain"].tolist() == ["photo", "sketch"] and table["is_id"].tolist() == [True, False]
    rows = np.flatnonzero(task.images.table["domain"] == "sketch")
    own = [set(text.split(" | ")) for text in task.images.table["captions"].iloc[rows]]
    names = sorted(set().union(*own))
    columns = [task.names.index(name) for name in names]
    near = similarities[rows][:, columns]
    top = [names[place] in captions for place, captions in zip(near.argmax(1).tolist(), own, strict=True)]
    back = [names[text] in own[place] for text, place in enumerate(near.argmax(0).tolist())]
    sketch = table.iloc[1]
    assert sketch["text@1"] == pytest.approx(100 * np.mean(top)) and sketch["captions"] == len(names)
    assert sketch["image@1"] == pytest.approx(100 * np.mean(back)) and sketch["images"] == len(rows)
    assert sketch["recall"] == pytest.approx((sketch["text@1"] + sketch["image@1"]) / 2)
    assert sketch["text@1"] <= sketch["text@5"] <= sketch["text@10"] and sketch["forgotten"] == 0
    answers = similarities.argmax(1)
    said = [task.names[text] for text in answers.tolist()]
    expected = [s in t.split(" | ") for s, t in zip(said, task.images.table["captions"], strict=True)]
    assert task.right(answers).tolist() == expected
    assert task.right(torch.stack([answers, answers])).tolist() == [expected, expected]


def test_a_batch_has_every_caption_that_fits_as_a_positive(task):
    backbone, drawn = make_backbone(), set()
    torch.manual_seed(0)
    for batch in task.batches(backbone, TrainingConfig(batch_size=16)):
        captions = [task.names[label] for label in batch.labels.tolist()]
        drawn |= set(captions)
        assert batch.positives.diagonal().all() and batch.positives.shape == (len(captions), len(captions))
        # a column's caption fits the images that have it: all of its class if it is the class's name
        for column, caption in enumerate(captions):
            same = [place for place, other in enumerate(captions) if other == caption]
            assert batch.positives[same, column].all()
        features = torch.nn.functional.normalize(torch.randn(2, len(captions), 4), dim=-1)
        assert torch.isfinite(mpm_nce(*features, batch.positives))
    assert drawn == set(task.names)
    several = [batch.positives for batch in task.batches(backbone, TrainingConfig(batch_size=64))]
    assert any((p != p.T).any() for p in several)  # image i has text j, and not image j text i


def test_the_way_along_alpha_is_the_same_as_for_classes(task):
    backbone, test = make_backbone(), task.on(task.images.test)
    tuned = tune(backbone, task.on(task.images.train), "FLYP", **QUICK)
    swept = sweep(backbone, tuned, test, (0.0, 0.5, 1.0))
    curve = AlphaCurve.measure(backbone, tuned.delta, test, nodes=5)
    assert swept["recall"].between(0, 100).all() and (swept["alpha"] == 0).sum() == 2
    assert curve.sweep(test, (0.0, 1.0))["recall"].tolist() == pytest.approx(
        swept.loc[swept["alpha"] != 0.5, "recall"].tolist()
    )
    assert evaluate(backbone, test)["recall"].tolist() == pytest.approx(
        swept.loc[swept["alpha"] == 0, "recall"].tolist()
    )
    assert {"id", "ood"} <= set(layer_profile(backbone, tuned.delta, test))
    slider = alpha_slider({"FLYP": curve}, test)
    assert "recall (%)" in slider.children[1].value or "✓" in slider.picture.value or "✗" in slider.picture.value
    with pytest.raises(ValueError, match="makes a head for classes, and Retrieval has none"):
        tune(backbone, task, "linear probe")


def test_what_is_typed_is_found_and_the_slider_moves_it(images):
    backbone = make_backbone()
    tuned = tune(backbone, Retrieval.of(images.train), "FLYP", **QUICK | {"lr": 3e-2})
    gallery = SearchGallery(backbone, tuned.delta, images.test, "a first <shape>")
    with torch.no_grad():
        for alpha in (0.0, 1.0):
            gallery.slider.value = alpha
            with tuned.delta.applied(backbone.model, alpha):
                text = backbone.encode_texts(backbone.tokenizer(["a first <shape>"]))
                pixels = images.test.tensor(backbone.preprocess)
                near = (backbone.encode_images(pixels) @ text.T)[:, 0]
            assert near[gallery.found].tolist() == pytest.approx(
                near.topk(min(SHOWN, len(near))).values.tolist(), abs=1e-5
            )
    assert "a first &lt;shape&gt;" in gallery.picture.value
    before = gallery.picture.value
    gallery.query.value = "a circle"
    assert gallery.picture.value != before


def test_the_bench_measures_both_sources_of_captions(images, tmp_path, monkeypatch):
    words = images.table["captions"].where(images.table["domain"] == "photo", images.table["class"] + " | drawn")
    pictures = ImageSet.from_table(
        images.table.assign(captions=words, domain=images.table["domain"].replace("sketch", "emoji")),
        read=images._read,
        classes=images.classes,
        id_domain="photo",
    )
    noted = bench.annotated(pictures)
    assert set(noted.table["annotations"]) == {"drawn"} and noted.domains == ["photo"]
    monkeypatch.setattr(bench, "recommended", lambda name, *_: METHODS[name].config)
    own = bench.with_settings

    def quick(config, changed):
        return own(config, changed | QUICK | ({"momentum": 0.5} if hasattr(config, "adapter") else {}))

    monkeypatch.setattr(bench, "with_settings", quick)
    path = tmp_path / "retrieval.csv"
    bench.run_retrieval(make_backbone(), pictures, path, ["FLYP", "R-Adapter, InfoNCE"], seeds=1)
    rows = pd.read_csv(path)
    assert set(rows["method"]) == {"FLYP", "R-Adapter, InfoNCE"} and set(rows["texts"]) == {"captions", "annotations"}
    assert set(rows["alpha"]) == set(bench.ALPHAS) and {"recall", "text@5", "image@10"} <= set(rows)
    before = path.read_bytes()
    bench.run_retrieval(make_backbone(), pictures, path, ["FLYP"], seeds=1)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="bench retrieval has no CoOp; it compares R-Adapter, "):
        bench.run_retrieval(make_backbone(), pictures, path, ["CoOp"], seeds=1)


def test_captions_that_do_not_serve_are_refused(images):
    table = images.table
    with pytest.raises(
        ValueError, match="has no captions: its table needs a column 'captions', .*; it has file, domain, class"
    ):
        Retrieval.of(ImageSet.from_table(table.drop(columns="captions"), "."))
    with pytest.raises(ValueError, match=f"has no caption for {table['file'][0]}: write one, or drop its row"):
        Retrieval.of(ImageSet.from_table(table.assign(captions=["", *table["captions"][1:]]), "."))
    with pytest.raises(ValueError, match="has the caption .* which is none of the 1 given"):
        Retrieval.of(images, names=["another"])
    own, _ = checked(pd.DataFrame({"file": ["a.png"], "captions": ["a hill"]}), "mine", None)
    assert own["class"].tolist() == ["image"]
