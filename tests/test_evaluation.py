"""Zero-shot heads, accuracies, sweeps and intervals, against the same things written out."""

import copy
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TIMM, make_backbone, make_clip, make_folder
from open_clip.model import CustomTextCLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from scipy import stats
from sklearn.metrics import accuracy_score
from torch.nn import functional as F

from radapter_lite import encoding
from radapter_lite.alpha_choice import unlabelled_statistics
from radapter_lite.backbone import Backbone
from radapter_lite.backbone.load import PHOTOS
from radapter_lite.bench import Exam
from radapter_lite.data import load_images
from radapter_lite.delta import Delta, require_weights
from radapter_lite.encoding import image_features, predict, text_features, text_head
from radapter_lite.evaluation import along, evaluate, sweep
from radapter_lite.methods.whitening import inverse_root
from radapter_lite.statistics import mean_and_interval, summarize
from radapter_lite.tasks import as_task
from radapter_lite.tasks.classification import accuracy_by_domain
from radapter_lite.tuned import Tuned

COLUMNS = ["domain", "is_id", "accuracy", "images"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("evaluation"), ("photo", "comic", "art"))
    return load_images(folder, id_domain="photo").select(split="test")


def changed(backbone):
    """A delta that moves every weight of the backbone."""
    before = copy.deepcopy(backbone.model.state_dict())
    tuned = make_backbone(seed=5).model
    return Delta.from_difference(before, tuned)


def one_by_one(backbone, delta, images, alphas):
    """The similarities at each α, all of them computed anew."""
    found = []
    for alpha in alphas:
        with delta.applied(backbone.model, alpha):
            found.append(predict(backbone, images))
    return found


@torch.no_grad()
def test_a_class_is_the_mean_of_its_prompts(images, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 4)  # a class's prompts need not be encoded at once
    backbone = make_backbone()
    found = text_head(backbone, images.classes)
    for vector, name in zip(found, images.classes, strict=True):
        total = torch.zeros(32)
        for prompt in PHOTOS:
            feature = backbone.model.encode_text(backbone.tokenizer([prompt.format(name)]))[0]
            total += feature / feature.norm()
        torch.testing.assert_close(vector, total / total.norm(), rtol=0, atol=1e-6)
    assert found.shape == (3, 32)


@torch.no_grad()
def test_similarities_are_cosines(images, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 4)
    backbone = make_backbone()
    pixels = torch.stack([backbone.preprocess(images.image(row)) for row in range(len(images))])
    features = F.normalize(backbone.model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(image_features(backbone, images), features, rtol=0, atol=1e-5)
    expected = F.cosine_similarity(features[:, None], text_head(backbone, images.classes)[None], dim=-1)
    torch.testing.assert_close(predict(backbone, images), expected, rtol=0, atol=1e-5)


def test_accuracies_are_those_of_scikit_learn(images):
    similarities = torch.randn(len(images), 3, generator=torch.Generator().manual_seed(0))
    result = accuracy_by_domain(similarities, images)
    assert list(result.columns) == COLUMNS
    assert result["domain"].tolist()[0] == "photo" and result["is_id"].tolist() == [True, False, False]
    assert set(result["domain"]) == {"photo", "comic", "art"}
    guesses, labels = similarities.argmax(1).numpy(), images.labels.numpy()
    for row in result.itertuples():
        of = (images.table["domain"] == row.domain).to_numpy()
        assert row.images == of.sum()
        assert row.accuracy == pytest.approx(100 * accuracy_score(labels[of], guesses[of]))


def test_a_sweep_starts_at_zero_shot_and_leaves_the_weights(images):
    backbone = make_backbone()
    before = copy.deepcopy(backbone.model.state_dict())
    zero_shot = evaluate(backbone, images)
    delta = changed(backbone)
    result = sweep(backbone, delta, images, [0.0, 0.5, 1.0])
    assert result["alpha"].tolist() == [0.0] * 3 + [0.5] * 3 + [1.0] * 3
    at = {alpha: part.reset_index(drop=True)[COLUMNS] for alpha, part in result.groupby("alpha")}
    pd.testing.assert_frame_equal(at[0.0], zero_shot)
    pd.testing.assert_frame_equal(at[1.0], evaluate(make_backbone(seed=5), images))
    with delta.applied(backbone.model, 0.5):
        pd.testing.assert_frame_equal(at[0.5], evaluate(backbone, images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    assert sweep(backbone, delta, images)["alpha"].unique() == pytest.approx(np.arange(11) / 10)


@pytest.mark.parametrize("measured", ["sweep", "exam"])
def test_along_alpha_a_delta_is_checked_once_and_gives_the_same_bits(images, monkeypatch, measured):
    backbone = make_backbone()
    delta, alphas = changed(backbone), (0.7, 0.0, 1.0, 0.3)
    expected = one_by_one(backbone, delta, images, alphas)
    found, encoded, checks = [], [], []

    def watched(*arguments):
        for point in along(*arguments):
            found.append(point[1])
            yield point

    def counted(backbone, images):
        encoded.append(len(images))
        return image_features(backbone, images)

    monkeypatch.setattr("radapter_lite.evaluation.along", watched)
    monkeypatch.setattr("radapter_lite.bench.runs.along", watched)
    monkeypatch.setattr("radapter_lite.encoding.image_features", counted)
    check = require_weights
    monkeypatch.setattr("radapter_lite.delta.require_weights", lambda *about: (checks.append(1), check(*about)))
    before = copy.deepcopy(backbone.model.state_dict())
    if measured == "sweep":
        sweep(backbone, delta, images, alphas)
    else:
        Exam.prepare(backbone, images).measure(Tuned(delta, pd.DataFrame(), 0), alphas)
    assert len(found) == 4 and all(map(torch.equal, found, expected)) and len(checks) == 1
    assert len(encoded) == 4  # zero-shot once
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


@pytest.mark.parametrize("tower", ["image", "text"])
def test_along_alpha_an_encoder_that_does_not_change_encodes_once(images, monkeypatch, tower):
    backbone, task = make_backbone(), as_task(images)
    whole = changed(backbone)
    own = {name: t for name, t in whole.tensors.items() if name.startswith("visual.") == (tower == "image")}
    delta = Delta(whole.kind, own)  # a rest of it has no fingerprint
    expected = one_by_one(backbone, delta, images, (0.5, 1.0))
    calls = Counter()
    for place, name, function in (("encoding", "image", image_features), ("alpha_curve", "text", text_features)):
        counted = lambda *given, name=name, function=function: calls.update([name]) or function(*given)  # noqa: E731
        monkeypatch.setattr(f"radapter_lite.{place}.{name}_features", counted)
    found = [similarities for _, similarities, _ in along(backbone, delta, task, (0.5, 1.0))]
    assert all(map(torch.equal, found, expected)) and not torch.equal(*found)
    assert calls == {"image": 3 if tower == "image" else 1, "text": 3 if tower == "text" else 1}


@pytest.mark.parametrize(("room", "passes"), [(2**31, 1), (1000, 4)])
def test_along_alpha_the_layer_before_the_delta_is_computed_once(images, monkeypatch, room, passes):
    backbone, alphas = make_backbone(), (0.3, 0.7, 1.0)
    delta = Delta("adapter", {"visual.transformer.resblocks.1.mlp.c_proj": torch.eye(64)})
    expected = one_by_one(backbone, delta, images, alphas)
    monkeypatch.setattr(encoding, "BATCH", 4)
    monkeypatch.setattr(encoding, "KEPT_IMAGE_BYTES", room)
    computed = []
    first = backbone.model.visual.conv1
    first.register_forward_hook(lambda _, given, output: computed.append(output) if output is not given[0] else None)
    found = [similarities for _, similarities, _ in along(backbone, delta, as_task(images), alphas)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert len(computed) == passes * math.ceil(len(images) / 4)  # zero-shot and three α


def test_an_interrupted_pass_leaves_nothing_behind(images, monkeypatch):
    backbone, expected = make_backbone(), []
    encode = encoding.image_encoder(backbone, images, Delta("difference", {"visual.proj": torch.zeros(64, 32)}))
    monkeypatch.setattr(encoding, "BATCH", 4)
    whole = Backbone.encode_images

    def interrupted(self, pixels):
        expected.append(pixels)
        if len(expected) == 3:
            raise KeyboardInterrupt
        return whole(self, pixels)

    monkeypatch.setattr(Backbone, "encode_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode()
    monkeypatch.setattr(Backbone, "encode_images", whole)
    for _ in range(2):
        torch.testing.assert_close(encode(), image_features(backbone, images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("trunk", ["xcit_nano_12_p16_224", "hiera_tiny_224"])  # a tuple first; a mask beside pixels
def test_along_alpha_towers_are_taken_whose_first_layer_is_not_as_usual(images, trunk):
    model = make_clip(vision=TIMM | {"timm_model_name": trunk, "timm_pool": "avg"}, kind=CustomTextCLIP)
    backbone = replace(
        make_backbone(), model=model, preprocess=image_transform_v2(PreprocessCfg(size=224), is_train=False)
    )
    delta = Delta("difference", {"visual.head.proj.weight": torch.ones(32, 1) * model.visual.head.proj.weight[:1]})
    some = images.take(range(0, len(images), 9))
    [expected] = one_by_one(backbone, delta, some, (1.0,))
    _, last = [similarities for _, similarities, _ in along(backbone, delta, as_task(some), (0.5, 1.0))]
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-5)


def test_a_sweep_starts_at_zero_shot_whatever_was_applied(images):
    backbone = make_backbone()
    delta = changed(backbone)
    expected = sweep(backbone, delta, images, (0.0, 1.0))
    with delta.applied(backbone.model, 0.5):
        before = copy.deepcopy(backbone.model.state_dict())
        pd.testing.assert_frame_equal(sweep(backbone, delta, images, (0.0, 1.0)), expected)
        assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


class WithoutFloat64(torch.Tensor):
    """A tensor as on Apple's GPUs."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        if function is torch.Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        if function is torch.Tensor.cpu:
            return arguments[0].as_subclass(torch.Tensor)
        return super().__torch_function__(function, types, arguments, options or {})


def test_what_needs_float64_is_computed_on_the_cpu(images):
    moment = torch.eye(4) + 0.5
    assert torch.equal(inverse_root(moment.as_subclass(WithoutFloat64), 0.1), inverse_root(moment, 0.1))
    similarities = predict(make_backbone(), images)
    there = similarities.as_subclass(WithoutFloat64)
    pd.testing.assert_frame_equal(
        unlabelled_statistics(there, images, there, 0.07),
        unlabelled_statistics(similarities, images, similarities, 0.07),
    )


def test_ood_domains_count_alike_however_many_images_they_have():
    results = pd.DataFrame(
        {
            "alpha": [0.0] * 3 + [1.0] * 3,
            "domain": ["id", "a", "b"] * 2,
            "is_id": [True, False, False] * 2,
            "accuracy": [50.0, 10.0, 30.0, 80.0, 20.0, 60.0],
            "images": [10, 1000, 1] * 2,
        }
    )
    found = summarize(results, ["alpha"])
    expected = pd.DataFrame({"alpha": [0.0, 1.0], "id": [50.0, 80.0], "ood": [20.0, 40.0]})
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("by", [["alpha"], ["method", "alpha"]])
def test_without_ood_domains_there_is_no_ood_accuracy(by):
    results = pd.DataFrame({"method": "m", "alpha": [0.0, 1.0], "is_id": True, "accuracy": [5.0, 6.0]})
    found = summarize(results, by)
    assert found["id"].tolist() == [5.0, 6.0] and found["ood"].isna().all()


def test_intervals_are_student_s():
    values = pd.DataFrame(
        {"method": ["a"] * 3 + ["b"] * 5, "id": [1.0, 2, 3, 4, 4, 5, 7, 9], "ood": [3.0, 3, 3, 0, 1, 0, 1, 8]}
    )
    found = mean_and_interval(values, ["method"]).set_index("method")
    assert found["seeds"].tolist() == [3, 5]
    assert found.loc["a", "id"] == 2.0
    assert found.loc["a", "id_ci"] == pytest.approx(4.302653 / math.sqrt(3))  # t(0.975, 2) from a printed table
    assert found.loc["a", "ood_ci"] == 0.0
    for column in ("id", "ood"):
        sample = values.loc[values["method"] == "b", column]
        low, high = stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))
        assert found.loc["b", column] == pytest.approx((low + high) / 2)
        assert found.loc["b", f"{column}_ci"] == pytest.approx((high - low) / 2)


def test_one_seed_has_no_interval():
    found = mean_and_interval(pd.DataFrame({"method": ["a"], "id": [1.0]}), ["method"], ["id"])
    assert found["id"].tolist() == [1.0] and found["id_ci"].isna().all()


def test_forgotten_is_the_share_of_right_answers_lost(images):
    backbone = make_backbone()
    delta = changed(backbone)
    before = predict(backbone, images).argmax(1) == images.labels
    with delta.applied(backbone.model, 1.0):
        after = predict(backbone, images).argmax(1) == images.labels
    table = sweep(backbone, delta, images, (0.0, 1.0)).set_index(["alpha", "domain"])["forgotten"]
    for domain in images.domains:
        own = torch.tensor((images.table["domain"] == domain).to_numpy())
        right = before & own
        if not right.any():
            assert math.isnan(table[1.0, domain])
            continue
        assert table[0.0, domain] == 0
        assert table[1.0, domain] == pytest.approx(100 * (right & ~after).sum().item() / right.sum().item())
    assert any((before & torch.tensor((images.table["domain"] == d).to_numpy())).any() for d in images.domains)
