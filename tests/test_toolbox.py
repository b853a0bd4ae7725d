"""Few-shot tricks: each does to a batch what its paper writes, any method takes it or says why not, and off is off."""

import pickle
from dataclasses import replace
from functools import partial

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder
from sklearn.metrics import f1_score, roc_auc_score
from torch.nn import functional as F

from radapter_lite import METHODS, load_images, training, tune
from radapter_lite.encoding import predict, text_features
from radapter_lite.methods import tricks, unlabelled
from radapter_lite.methods.objectives import contrastive_loss
from radapter_lite.settings import by_name, with_settings
from radapter_lite.tasks import Batch, Classification
from radapter_lite.tasks.classification import report
from radapter_lite.training import TrainingConfig

QUICK = {"epochs": 2, "batch_size": 8, "lr": 3e-3, "warmup_steps": 0, "precision": "float32", "temperature": 0.05}
TRICKS = {
    "mixup": {"mixup": 0.4},
    "manifold mixup": {"mixup": 0.4, "mixup_layer": "random"},
    "adversarial": {"adversarial": 0.05},
    "r_drop": {"r_drop": 1.0},
}
TRAINING = [name for name, method in METHODS.items() if method.trains]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("tricks") / "shapes", ("photo", "sketch"), 12)
    return load_images(folder, id_domain="photo")


@pytest.fixture
def backbone():
    return make_backbone()


@pytest.fixture
def batch(images, backbone):
    few = images.few_shot(2)
    labels = few.labels
    return Batch(few.tensor(backbone.preprocess), labels, labels[:, None] == labels)


def config_of(name, **settings):
    config, known = METHODS[name].config, by_name(METHODS[name].config)
    asked = QUICK | {"init_text": None, "momentum": 0.5} | settings
    return with_settings(config, {key: value for key, value in asked.items() if key in known})


def image_loss(backbone, head):
    """A loss without random numbers, which reads images, labels and positives."""

    def loss(batch):
        similarities = backbone.encode_images(batch.images) @ head.T / 0.1
        wanted = batch.positives.float() / batch.positives.sum(1, keepdim=True)
        own = F.log_softmax(similarities[:, batch.labels], dim=1)
        return F.cross_entropy(similarities, batch.labels) - (wanted * own).sum(1).mean()

    return loss


@pytest.fixture
def head(images, backbone):
    return text_features(backbone, Classification(images).texts(backbone))


def with_share(monkeypatch, share):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda *_: torch.tensor(share))


# --- mixup ---


@pytest.mark.parametrize("layer", ["input", "random"])
def test_mixup_of_one_image_alone_is_the_plain_loss(batch, backbone, head, layer, monkeypatch):
    loss = image_loss(backbone, head)
    with_share(monkeypatch, 1.0)
    torch.testing.assert_close(tricks.mixup(loss, batch, backbone.model, 0.4, layer)(), loss(batch))


def test_mixup_by_hand(batch, backbone, head, monkeypatch):
    loss, order = image_loss(backbone, head), torch.tensor([2, 0, 1, 5, 3, 4])
    with_share(monkeypatch, 0.7)
    monkeypatch.setattr(torch, "randperm", lambda _: order)
    images = 0.7 * batch.images + 0.3 * batch.images[order]
    partners = Batch(images, batch.labels[order], batch.positives[order][:, order])
    assert torch.equal(partners.positives, partners.labels[:, None] == partners.labels)
    expected = 0.7 * loss(replace(batch, images=images)) + 0.3 * loss(partners)
    torch.testing.assert_close(tricks.mixup(loss, batch, backbone.model, 0.4, "input")(), expected)


def test_matches_that_are_not_those_of_labels_follow_their_pairs(batch, backbone, monkeypatch):
    """Images 0 and 1 match each other's texts in one direction alone: so do their places after the pairing."""
    order, seen = torch.tensor([3, 4, 0, 1, 2, 5]), []
    positives = torch.eye(6, dtype=torch.bool)
    positives[0, 1] = True
    monkeypatch.setattr(torch, "randperm", lambda _: order)

    def loss(batch):
        seen.append(batch.positives)
        return batch.images.sum()

    tricks.mixup(loss, replace(batch, positives=positives), backbone.model, 0.4, "input")()
    assert torch.equal(seen[0], positives)
    assert seen[1][2, 3] and seen[1].sum() == 7  # places 2 and 3 hold the images 0 and 1


def test_manifold_mixup_mixes_what_reaches_the_drawn_block(batch, backbone, head, monkeypatch):
    blocks, entered, order = tricks.image_blocks(backbone.model), [], torch.tensor([1, 2, 3, 4, 5, 0])
    handle = blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    backbone.encode_images(batch.images)
    handle.remove()
    with_share(monkeypatch, 0.7)
    monkeypatch.setattr(torch, "randperm", lambda _: order)
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(0))
    once = tricks.mixup(image_loss(backbone, head), batch, backbone.model, 0.4, "random")
    seen = []
    handle = blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    once()
    handle.remove()
    assert len(seen) == 1  # both losses share one pass through the image encoder
    torch.testing.assert_close(seen[0], 0.7 * entered[0] + 0.3 * entered[0][order])
    assert not blocks[0]._forward_pre_hooks and "forward" not in vars(backbone.model.visual)


# --- adversarial ---


@pytest.mark.parametrize("size", [1e-3, 3e-3])
def test_the_adversary_raises_the_loss_to_first_order(batch, backbone, head, size):
    """For one image, the loss rises by the step's length times the length of the gradient."""
    one, loss = Batch(batch.images[:1], batch.labels[:1], batch.positives[:1, :1]), image_loss(backbone, head)
    block, kept = tricks.image_blocks(backbone.model)[0], []
    handle = block.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    clean = loss(one)
    handle.remove()
    (gradient,) = torch.autograd.grad(clean, kept)
    mean = tricks.adversarial(partial(loss, one), backbone.model, size)
    rise = 2 * (mean - clean).item()
    assert rise == pytest.approx(size * kept[0].norm().item() * gradient.norm().item(), rel=0.05)


def test_the_adversary_moves_texts_too_and_repeats_what_was_drawn(batch, backbone, images):
    loss, seen = contrastive_loss(backbone, Classification(images.few_shot(2)), 0.1), []

    def watched(batch):
        seen.append(torch.get_rng_state())
        return loss(batch)

    text_block, entered = backbone.model.transformer.resblocks[0], []
    handle = text_block.register_forward_hook(lambda _, inputs, __: entered.append(inputs[0].detach()))
    tricks.adversarial(partial(watched, batch), backbone.model, 0.1)
    handle.remove()
    assert torch.equal(*seen)
    moved = (entered[1] - entered[0]).flatten(1).norm(dim=1) / entered[0].flatten(1).norm(dim=1)
    assert moved.tolist() == pytest.approx([0.1] * len(moved), rel=1e-3)


# --- R-Drop ---


def test_passes_that_agree_cost_nothing(head):
    features = torch.randn(5, head.shape[1])
    assert tricks.divergence(features, 3 * features, head / 0.1).item() == pytest.approx(0, abs=1e-6)
    p, q = ((F.normalize(f, dim=1) @ head.T / 0.1).softmax(1) for f in (features, features.flip(0)))
    both = F.kl_div(p.log(), q, reduction="batchmean") + F.kl_div(q.log(), p, reduction="batchmean")
    torch.testing.assert_close(tricks.divergence(features, features.flip(0), head / 0.1), both / 2)


def test_r_drop_lets_a_method_drop_by_itself_and_drops_embeddings_elsewhere(batch, backbone, head):
    loss, visual = image_loss(backbone, head), backbone.model.visual
    inputs = []
    handle = tricks.image_blocks(backbone.model)[0].register_forward_hook(lambda _, i, __: inputs.append(i[0].detach()))
    tricks.r_drop(partial(loss, batch), backbone.model, head, 1.0)
    dropped = inputs[1] == 0
    assert not (inputs[0] == 0).any() and dropped.float().mean().item() == pytest.approx(0.1, abs=0.03)
    random = visual.ln_post.register_forward_hook(lambda _, __, output: F.dropout(output, 0.2))
    tricks.r_drop(partial(loss, batch), backbone.model, head, 1.0)
    assert torch.equal(inputs[2], inputs[3])
    random.remove()
    handle.remove()


# --- in the loop ---


def test_off_the_loss_is_the_very_same_function(backbone):
    loss = object()
    assert tricks.with_tricks(loss, backbone, TrainingConfig(), None) is loss


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("name", TRAINING)
def test_every_method_takes_a_trick_or_says_why_not(images, backbone, name, trick):
    few = images.few_shot(3)
    frozen = trick in ("adversarial", "r_drop") and name in ("CLIP-Adapter", "Tip-Adapter-F")
    frozen = frozen or (trick == "r_drop" and name in ("CoOp", "P-tuning"))
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    if frozen:
        with pytest.raises(ValueError, match=rf"^{trick} .*: .*set it to 0|^{trick} .*set it to 0, or choose a method"):
            METHODS[name].tune(backbone, few, config_of(name, **TRICKS[trick]))
    else:
        plain = METHODS[name].tune(backbone, few, config_of(name))
        tuned = METHODS[name].tune(backbone, few, config_of(name, **TRICKS[trick]))
        assert tuned.history["loss"].notna().all()
        assert (tuned.history["loss"] != plain.history["loss"]).any()
    after = backbone.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["linear probe", "Tip-Adapter"])
def test_methods_without_a_loop_have_no_such_option(images, backbone, name):
    with pytest.raises(ValueError, match=r"has no setting 'mixup'; it has"):
        tune(backbone, images.few_shot(3), name, mixup=0.4)


@pytest.mark.parametrize("name, value", [("mixup", -1.0), ("adversarial", float("nan")), ("mixup_layer", "middle")])
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        TrainingConfig(**{name: value})


def test_an_interrupted_run_with_all_tricks_ends_in_the_same_bits(images, backbone, monkeypatch, tmp_path):
    few, options = images.few_shot(5), {"mixup": 0.4, "adversarial": 0.05, "r_drop": 1.0, "epochs": 4, "save_every": 1}
    config = config_of("R-Adapter", **options)
    whole = METHODS["R-Adapter"].tune(backbone, few, config)
    rate, calls = training.learning_rate, iter(range(100))

    def interrupted(*args):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return rate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            METHODS["R-Adapter"].tune(backbone, few, config, checkpoint=tmp_path / "run.pt")
    resumed = METHODS["R-Adapter"].tune(backbone, few, config, checkpoint=tmp_path / "run.pt")
    assert all(torch.equal(resumed.delta.tensors[key], value) for key, value in whole.delta.tensors.items())
    with pytest.raises(ValueError, match="is of a run with mixup=0.4, this one has 0.2"):
        METHODS["R-Adapter"].tune(backbone, few, with_settings(config, {"mixup": 0.2}), checkpoint=tmp_path / "run.pt")


# --- images without labels ---


def quick_tune(backbone, images, **settings):
    return METHODS["R-Adapter"].tune(backbone, images, config_of("R-Adapter", **settings))


def test_labels_of_unlabelled_images_are_never_read(images, backbone):
    few, more = images.few_shot(2), images.train.select(domain="photo")
    mixed_up = replace(
        more, table=more.table.assign(**{"class": more.table["class"].sample(frac=1, random_state=0).to_numpy()})
    )
    settings = {key: QUICK[key] for key in QUICK} | {"momentum": 0.5}
    students = [
        unlabelled.self_train(backbone, few, each, threshold=0.0, **settings).delta.tensors for each in (more, mixed_up)
    ]
    assert all(torch.equal(students[0][key], students[1][key]) for key in students[0])
    adapted = [
        unlabelled.pretrain(backbone, each, TrainingConfig(steps=2)).model.state_dict() for each in (more, mixed_up)
    ]
    assert all(torch.equal(adapted[0][key], adapted[1][key]) for key in adapted[0])


def test_teachers_must_agree_and_be_sure(images, backbone):
    few, more = images.few_shot(2), images.train.select(domain="photo")
    teachers = [quick_tune(backbone, few, seed=seed, lr=0.03) for seed in (0, 1)]
    told = unlabelled.pseudo_labels(backbone, teachers, few, more, 0.0)
    assert not set(told.table["file"]) & set(few.table["file"])
    own = more.take(np.flatnonzero(~more.table["file"].isin(few.table["file"])))
    first, second = (teacher.similarities(backbone, own).argmax(1) for teacher in teachers)
    expected = [few.classes[label] for label, other in zip(first, second, strict=True) if label == other]
    assert told.table["class"].tolist() == expected and len(expected) > 0
    assert len(unlabelled.pseudo_labels(backbone, teachers, few, more, 1.1)) == 0


def test_the_student_takes_as_many_steps_as_its_teachers(images, backbone):
    few = images.few_shot(2)
    told = images.train.select(domain="photo")
    student = unlabelled.study(backbone, few, told, "R-Adapter", config_of("R-Adapter"))
    assert len(student.history) == len(quick_tune(backbone, few).history)


def test_pretrained_and_tuned_are_one_delta_from_zero_shot(images, backbone):
    few, task = images.few_shot(2), images.test
    zero_shot = predict(backbone, task)
    adapted = unlabelled.pretrain(backbone, images.train, TrainingConfig(steps=3, lr=1e-3))
    assert not torch.equal(predict(adapted, task), zero_shot)
    assert torch.equal(predict(backbone, task), zero_shot)  # it is a copy that was adapted
    tuned = quick_tune(adapted, few)
    both = unlabelled.since(backbone, adapted, tuned)
    assert torch.equal(both.similarities(backbone, task, 0.0), zero_shot)
    torch.testing.assert_close(both.similarities(backbone, task), tuned.similarities(adapted, task), atol=1e-5, rtol=0)
    texts = [name for name in both.delta.touched(backbone.model.state_dict()) if not name.startswith("visual.")]
    pretrained = unlabelled.since(backbone, adapted, quick_tune(adapted, few, towers=("image",)))
    assert texts and all(name.startswith("visual.") for name in pretrained.delta.tensors)
    with pytest.raises(ValueError, match="CLIP-Adapter learns no change of CLIP's own weights"):
        unlabelled.since(backbone, adapted, METHODS["CLIP-Adapter"].tune(adapted, few, config_of("CLIP-Adapter")))


# --- ensembles and metrics ---


def test_an_ensemble_is_the_mean_of_probabilities(images, backbone):
    members, task, t = (
        [quick_tune(backbone, images.few_shot(2), seed=s) for s in (0, 1)],
        images.test,
        backbone.temperature,
    )
    said = [member.similarities(backbone, task) for member in members]
    alone = unlabelled.ensemble(backbone, members[:1], task)
    torch.testing.assert_close((alone / t).softmax(1), (said[0] / t).softmax(1))
    assert torch.equal(alone.argmax(1), said[0].argmax(1))
    both = unlabelled.ensemble(backbone, members, task)
    torch.testing.assert_close((both / t).exp(), sum((each / t).softmax(1) for each in said) / 2)


def test_the_report_is_scikit_learns(images):
    task = images.test
    similarities = torch.randn(len(task), 3, generator=torch.Generator().manual_seed(0))
    table = report(similarities, task, 0.5)
    assert table["domain"].tolist() == ["photo", "sketch"]
    own = (task.table["domain"] == "sketch").to_numpy()
    labels, scores = task.labels[torch.from_numpy(own.copy())].numpy(), similarities[own]
    row = table[table["domain"] == "sketch"].iloc[0]
    assert row["f1"] == pytest.approx(100 * f1_score(labels, scores.argmax(1), average="macro"))
    areas = [roc_auc_score(labels == c, (scores / 0.5).softmax(1)[:, c]) for c in range(3)]
    assert row["auc"] == pytest.approx(100 * np.mean(areas))
    assert row["recall"] == pytest.approx(row["accuracy"], abs=15)


def test_a_class_that_a_domain_lacks_does_not_count(images):
    keep = ~((images.test.table["domain"] == "sketch") & (images.test.table["class"] == "red"))
    task = images.test.take(np.flatnonzero(keep))
    right = F.one_hot(task.labels, 3).float()
    table = report(right, task, 0.1)
    assert (table[["accuracy", "precision", "recall", "f1", "auc"]] == 100).all(axis=None)


def test_the_bench_chooses_measures_and_goes_on(monkeypatch, tmp_path):
    from radapter_lite import load_clip
    from radapter_lite.bench import runs, toolbox

    here = runs._each  # as if it had been sent to another process
    monkeypatch.setattr(runs, "_each", lambda run, keys: here(pickle.loads(cloudpickle.dumps(run)), keys))
    images = load_images()
    images = images.only(images.classes[:3])
    monkeypatch.setattr(toolbox, "GRIDS", {"R-Drop": ("r_drop", (0.1, 1.0)), "TAPT": ("lr of pretraining", (1e-4,))})
    monkeypatch.setattr(toolbox, "VARIANTS", ("plain", "R-Drop", "TAPT", "ensemble"))
    monkeypatch.setattr(toolbox, "PRETRAINING_STEPS", 2)
    monkeypatch.setattr(toolbox, "epochs", lambda _: 4)
    monkeypatch.setattr("radapter_lite.methods.r_adapter.check_momentum", lambda *_: None)
    path = tmp_path / "toolbox.csv"
    table = toolbox.run_toolbox(load_clip(), images, path, 1)
    assert table["variant"].tolist() == ["plain", "R-Drop", "TAPT", "ensemble"]
    rows = pd.read_csv(path)
    searched = rows[rows["seed"] == toolbox.SEED]
    assert set(searched["split"]) == {"validation"} and len(searched) == 3
    best = searched.loc[searched.query("variant == 'R-Drop'")["accuracy"].idxmax(), "value"]
    assert set(rows.query("variant == 'R-Drop' and seed == 0")["value"]) == {best}
    assert {"precision", "recall", "f1", "auc", "forgotten"} <= set(rows)
    text = path.read_text()
    monkeypatch.setattr(toolbox, "measured", None)  # nothing is left to measure
    toolbox.run_toolbox(load_clip(), images, path, 1)
    assert path.read_text() == text
