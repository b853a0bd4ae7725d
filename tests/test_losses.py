"""The losses against double loops written from the equations, and their numerical stability."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from radapter_lite.losses import info_nce, mpm_nce


def naive_mpm_nce(f, g, y, tau, delta, eps):
    """The paper's sum over i and j, one term at a time, divided by B."""
    n = len(f)

    def logit(i, j):  # image i, text j
        return ((f[i] @ g[j]).item() + (0.0 if y[i][j] else delta)) / tau

    def log_sum_exp(values):
        top = max(values)
        return top + math.log(sum(math.exp(v - top) for v in values))

    total = 0.0
    for i in range(n):
        count = sum(y[i])
        for j in range(n):
            if count == n:
                target = 1 / count
            elif y[i][j]:
                target = (1 - eps) / count
            else:
                target = eps / (n - count)
            over_texts = logit(i, j) - log_sum_exp([logit(i, k) for k in range(n)])
            over_images = logit(i, j) - log_sum_exp([logit(k, j) for k in range(n)])
            total -= target * (over_texts + over_images)
    return total / n


def features(batch, dim, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, batch, dim, generator=generator, dtype=torch.float64)
    return F.normalize(pair, dim=-1).to(dtype).unbind(0)


@st.composite
def batches(draw):
    """Features and positives: by class (one to four of them), or any matrix with a True diagonal."""
    batch = draw(st.integers(1, 7))
    f, g = features(batch, draw(st.integers(1, 6)), draw(st.integers(0, 10_000)))
    if draw(st.booleans()):
        labels = torch.tensor(draw(st.lists(st.integers(0, 3), min_size=batch, max_size=batch)))
        positives = labels[:, None] == labels[None, :]
    else:
        bits = draw(st.lists(st.booleans(), min_size=batch**2, max_size=batch**2))
        positives = torch.tensor(bits).view(batch, batch) | torch.eye(batch, dtype=torch.bool)
    return f, g, positives


@settings(deadline=None, max_examples=150)
@given(
    batches(),
    st.floats(0.01, 2.0),
    st.one_of(st.just(0.0), st.floats(0.0, 0.5)),
    st.one_of(st.just(0.0), st.floats(0.0, 0.9)),
)
def test_mpm_nce_is_the_double_loop(batch, temperature, margin, smoothing):
    f, g, positives = batch
    loss = mpm_nce(f, g, positives, temperature=temperature, margin=margin, smoothing=smoothing)
    expected = naive_mpm_nce(f, g, positives.tolist(), temperature, margin, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(batches(), st.floats(0.5, 100.0))
def test_info_nce_is_the_double_loop_with_one_positive_each(batch, logit_scale):
    f, g, _ = batch
    identity = torch.eye(len(f), dtype=torch.bool)
    loss = info_nce(f, g, torch.tensor(logit_scale, dtype=torch.float64))
    assert loss.item() == pytest.approx(
        naive_mpm_nce(f, g, identity.tolist(), 1 / logit_scale, 0.0, 0.0), rel=1e-9, abs=1e-9
    )
    assert torch.equal(
        info_nce(f, g, logit_scale), mpm_nce(f, g, identity, temperature=1 / logit_scale, margin=0.0, smoothing=0.0)
    )


def test_info_nce_is_twice_clips_cross_entropy():
    f, g = features(8, 16, seed=0)
    logits, labels = 100 * f @ g.T, torch.arange(8)
    both = F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
    assert info_nce(f, g, 100.0).item() == pytest.approx(both.item(), rel=1e-12)


def test_one_class_alone_has_no_negatives_and_no_smoothing():
    f, g = features(5, 8, seed=1)
    everything = torch.ones(5, 5, dtype=torch.bool)
    smoothed = mpm_nce(f, g, everything, smoothing=0.5, margin=0.3)
    assert torch.isfinite(smoothed)
    assert torch.equal(smoothed, mpm_nce(f, g, everything, smoothing=0.0, margin=0.0))


def test_a_single_pair_costs_nothing():
    f, g = features(1, 4, seed=2)
    assert mpm_nce(f, g, torch.ones(1, 1, dtype=torch.bool)).item() == 0


def test_a_margin_makes_negatives_harder():
    f, g = features(6, 8, seed=3)
    identity = torch.eye(6, dtype=torch.bool)
    losses = [mpm_nce(f, g, identity, temperature=0.1, margin=m, smoothing=0).item() for m in (0, 0.05, 0.1)]
    assert losses == sorted(losses) and losses[0] < losses[2]


def test_the_learnable_scale_gets_its_gradient():
    f, g = features(6, 8, seed=4)
    log_scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: info_nce(f, g, s.exp()), (log_scale,))


@pytest.mark.parametrize("worst", [False, True])
def test_float32_is_stable_at_the_papers_temperature(worst):
    f, g = features(64, 32, seed=5)
    if worst:  # every pair opposed and every negative aligned: logits of -100 and +100
        f = f[:1].expand(64, -1).clone()
        f[32:] = -f[32:]
        g = -f
    labels = torch.arange(64) % 10
    positives = labels[:, None] == labels[None, :]
    results = {}
    for dtype in (torch.float32, torch.float64):
        image, text = f.to(dtype).requires_grad_(), g.to(dtype).requires_grad_()
        loss = mpm_nce(image, text, positives)
        loss.backward()
        results[dtype] = loss.item(), torch.stack([image.grad, text.grad]).double()
    (low, low_grad), (high, high_grad) = results[torch.float32], results[torch.float64]
    assert math.isfinite(low) and torch.isfinite(low_grad).all()
    assert low == pytest.approx(high, rel=1e-5)
    assert (low_grad - high_grad).norm() <= 1e-4 * high_grad.norm()


def test_half_precision_features_are_compared_in_float32():
    f, g = features(8, 16, seed=6, dtype=torch.bfloat16)
    loss = mpm_nce(f, g, torch.eye(8, dtype=torch.bool))
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_features": torch.ones(3, 4)}, r"one shape, not \(3, 4\) and \(2, 4\)"),
        ({"positives": torch.eye(2)}, "bool matrix of shape"),
        ({"positives": torch.eye(3, dtype=torch.bool)}, r"shape \(2, 2\), not torch.bool \(3, 3\)"),
        ({"positives": torch.zeros(2, 2, dtype=torch.bool)}, "True on the diagonal"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"margin": -0.1}, "margin must be 0 or more, not -0.1"),
        ({"margin": math.nan}, "margin must be 0 or more, not nan"),
        ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\), not 1.0"),
    ],
)
def test_wrong_input_is_refused_with_a_sentence(change, sentence):
    f, g = features(2, 4, seed=7)
    arguments = {"image_features": f, "text_features": g, "positives": torch.eye(2, dtype=torch.bool)} | change
    with pytest.raises(ValueError, match=sentence):
        mpm_nce(**arguments)
