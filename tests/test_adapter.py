"""Adapters: where they sit, what they compute, how they are dropped and averaged."""

import copy

import pytest
import torch
from conftest import MODELS, features, fill, make_clip, make_inputs, step
from torch import nn

from radapter_lite.adapter import AdapterConfig, AdapterSet, LinearAdapter
from radapter_lite.backbone.sites import find_sites

# --- sites ---


def test_sites_stand_behind_every_attention_and_mlp(clip):
    sites = find_sites(clip)
    assert [site.name for site in sites] == [
        f"{tower}.{layer}.{kind}"
        for tower, layers in (("image", 3), ("text", 2))
        for layer in range(layers)
        for kind in ("attn", "mlp")
    ]
    assert sites[0].linear == "visual.transformer.resblocks.0.attn.out_proj"
    assert sites[0].hooked == "visual.transformer.resblocks.0.attn"
    assert sites[-1].linear == sites[-1].hooked == "transformer.resblocks.1.mlp.c_proj"
    assert find_sites(clip, ("text",)) == [site for site in sites if site.tower == "text"]


def test_every_layout_of_towers_has_its_sites(any_clip):
    sites = find_sites(any_clip)
    for site in sites:
        linear = any_clip.get_submodule(site.linear)
        assert isinstance(linear, nn.Linear)
        assert linear is any_clip.get_submodule(site.hooked) or site.linear == f"{site.hooked}.out_proj"
    assert {site.tower for site in sites} == {"image", "text"}


def test_towers_whose_blocks_are_not_known_are_refused_by_name():
    model = make_clip(vision=dict(timm_model_name="efficientnet_b0", timm_pool="", timm_proj="linear", image_size=64))
    with pytest.raises(ValueError, match=r"the image tower has a branch .* not .* known, in visual.trunk.blocks.0 "):
        AdapterSet(model)
    assert AdapterSet(model, AdapterConfig(towers=("text",))).num_parameters == 2 * 2 * 48**2
    for part in ("attn", "mlp"):
        model = make_clip()
        setattr(model.transformer.resblocks[1], part, nn.Sequential(nn.Linear(48, 48), nn.Linear(48, 48)))
        with pytest.raises(ValueError, match=r"the text tower has a branch .* in transformer.resblocks.1 .*ViT-B-32"):
            find_sites(model)


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="the image tower is a NoneType, in which no residual blocks"):
        find_sites(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="video is no tower"):
        find_sites(make_clip(), ("video",))


# --- what one adapter computes ---


@pytest.mark.parametrize("rank", [None, 1, 4])
def test_an_adapter_is_the_identity_plus_a_product(rank):
    adapter = LinearAdapter(8, rank, drop_prob=0.0).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    assert torch.equal(adapter(x), x)  # zero at the start
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    product = adapter.weight if rank is None else adapter.B @ adapter.A
    torch.testing.assert_close(adapter(x), x @ product + x, rtol=1e-12, atol=1e-12)


def test_low_rank_starts_at_zero_with_a_gradient():
    adapter = LinearAdapter(8, 2, drop_prob=0.0)
    assert torch.equal(adapter.matrix(), torch.zeros(8, 8))
    adapter(torch.randn(3, 8)).square().sum().backward()
    assert adapter.A.grad.abs().sum() > 0


@pytest.mark.parametrize("p", [0.2, 0.5, 0.95])
def test_dropping_is_one_draw_a_call_and_right_on_average(p):
    adapter = LinearAdapter(4, drop_prob=p).double()
    nn.init.normal_(adapter.weight)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    change = x @ adapter.weight
    torch.manual_seed(0)
    outputs = torch.stack([adapter(x) - x for _ in range(4000)]).detach()
    gammas = outputs / change  # (calls, 6, 3, 4): one number a call, for every sample, token and channel
    torch.testing.assert_close(gammas, gammas[:, :1, :1, :1].expand_as(gammas))
    values = gammas[:, 0, 0, 0]
    kept = values > 0.5
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], 1 / (1 - p)))
    assert values[~kept].abs().max() < 1e-9
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_no_dropping_draws_nothing():
    adapter = LinearAdapter(4, drop_prob=0.0)
    before = torch.get_rng_state()
    adapter(torch.randn(2, 4, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dropped_adapter_still_has_a_gradient_of_zero():
    adapter = LinearAdapter(4, drop_prob=0.999999)
    adapter(torch.ones(1, 4, requires_grad=True)).sum().backward()
    assert torch.equal(adapter.weight.grad, torch.zeros(4, 4))


def test_evaluation_uses_the_average_and_drops_nothing():
    adapter = LinearAdapter(4, drop_prob=0.9).eval()
    nn.init.normal_(adapter.weight)
    nn.init.normal_(adapter.average)
    x = torch.randn(2, 4)
    assert all(torch.equal(adapter(x), x + x @ adapter.average) for _ in range(20))


@pytest.mark.parametrize("rank", [None, 3])
def test_accumulation_is_the_written_out_recursion(rank):
    adapter = LinearAdapter(6, rank).double()
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for _ in range(10):
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.normal_()
        adapter.accumulate(0.9)
        expected = 0.9 * expected + 0.1 * adapter.matrix().detach()
        torch.testing.assert_close(adapter.average, expected, rtol=1e-12, atol=1e-12)


# --- a set of them on a model ---


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("rank", [None, 4])
def test_the_tuned_model_begins_as_the_zero_shot_model(any_clip, rank, mode):
    inputs = make_inputs(any_clip)
    before = features(any_clip, inputs)
    adapters = AdapterSet(any_clip, AdapterConfig(rank=rank))
    getattr(adapters, mode)()
    torch.testing.assert_close(features(any_clip, inputs), before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 4])
def test_training_lowers_the_loss_and_moves_adapters_alone(any_clip, rank):
    inputs = make_inputs(any_clip, batch=6)
    before = copy.deepcopy(any_clip.state_dict())
    adapters = AdapterSet(any_clip, AdapterConfig(rank=rank, drop_prob=0.0, momentum=0.5))
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=5e-3, weight_decay=0)
    losses = [step(any_clip, adapters, inputs, optimizer) for _ in range(5)]
    assert losses[-1] < 0.99 * losses[0]
    assert all(adapter.average.abs().max() > 0 for adapter in adapters.adapters.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in any_clip.state_dict().items())
    assert all(parameter.grad is None for parameter in any_clip.parameters())


def test_hooked_output_is_the_adapters_formula(clip, inputs):
    """Layer by layer by hand, with PyTorch's attention called apart from the hooks."""
    adapters = AdapterSet(clip, AdapterConfig(drop_prob=0.0))
    fill(adapters)
    image = clip.visual._embeds(inputs[0])
    sites = iter(adapters.sites)
    for block in clip.visual.transformer.resblocks:
        attn, mlp = adapters[next(sites)].matrix(), adapters[next(sites)].matrix()
        y = block.ln_1(image)
        out = block.attn.forward(y, y, y, need_weights=False)[0]  # forward: around the hooks
        image = image + out @ attn + out
        hidden = block.mlp.gelu(block.mlp.c_fc(block.ln_2(image)))
        out = hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias
        image = image + out @ mlp + out
    expected = clip.visual.ln_post(image[:, 0]) @ clip.visual.proj
    torch.testing.assert_close(clip.encode_image(inputs[0]), expected, rtol=1e-4, atol=1e-5)


def test_the_attentions_fast_path_is_adapted_as_its_slow_path(clip, inputs):
    adapters = AdapterSet(clip, AdapterConfig(drop_prob=0.0))
    fill(adapters, scale=0.2)
    slow = clip.encode_image(inputs[0], normalize=True).detach()  # with gradients
    torch.testing.assert_close(features(clip, inputs)[:3], slow, rtol=1e-5, atol=1e-6)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        torch.testing.assert_close(features(clip, inputs)[:3], slow, rtol=1e-5, atol=1e-6)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_the_set_has_its_own_mode(clip, inputs):
    zero_shot = features(clip, inputs)
    adapters = AdapterSet(clip, AdapterConfig(drop_prob=0.0))
    with torch.no_grad():
        for adapter in adapters.adapters.values():
            adapter.weight.normal_()
    assert not torch.allclose(features(clip.eval(), inputs), zero_shot)  # live
    adapters.eval()  # the average has not moved yet
    torch.testing.assert_close(features(clip, inputs), zero_shot, rtol=1e-6, atol=1e-6)


def test_seeds_reproduce_dropping(clip, inputs):
    adapters = AdapterSet(clip, AdapterConfig(drop_prob=0.5))
    fill(adapters)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(features(clip, inputs))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_attaching_freezes_and_removing_gives_the_model_back(clip, inputs):
    before = features(clip, inputs)
    clip.logit_scale.requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in clip.parameters()]
    adapters = AdapterSet(clip)
    fill(adapters)
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    with pytest.raises(ValueError, match=r"already carries adapters: call remove\(\)"):
        AdapterSet(clip)
    for _ in range(2):  # twice does no harm
        adapters.remove()
        assert torch.equal(features(clip, inputs), before)
        assert [parameter.requires_grad for parameter in clip.parameters()] == wanted
    AdapterSet(clip).remove()


def test_the_set_saves_its_adapters_and_nothing_of_the_model(clip):
    adapters = AdapterSet(clip, AdapterConfig(rank=2))
    assert set(adapters.state_dict()) == {
        f"adapters.{site.name.replace('.', '_')}.{part}" for site in adapters.sites for part in ("A", "B", "average")
    }
    fill(adapters)
    saved = copy.deepcopy(adapters.state_dict())
    adapters.remove()
    again = AdapterSet(clip, AdapterConfig(rank=2))
    again.load_state_dict(saved)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize(("rank", "each"), [(None, 64 * 64), (4, 2 * 4 * 64)])
def test_counts_of_trained_parameters(rank, each):
    adapters = AdapterSet(make_clip(), AdapterConfig(rank=rank, towers=("image",)))
    assert adapters.num_parameters == 3 * 2 * each


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(rank=0), "rank must be a whole number of 1 or more, not 0"),
        (dict(rank=2.0), "rank must be a whole number of 1 or more, not 2.0"),
        (dict(rank=True), "rank must be a whole number of 1 or more, not True"),
        (dict(drop_prob=1.0), r"drop_prob must lie in \[0, 1\), not 1.0"),
        (dict(drop_prob=-0.1), "drop_prob must lie"),
        (dict(momentum=1.0), "momentum must lie"),
        (dict(momentum=float("nan")), "momentum must lie"),
        (dict(towers="image"), "towers must be .* not 'image'"),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        AdapterConfig(**settings)


def test_a_rank_wider_than_a_layer_is_refused(clip):
    with pytest.raises(ValueError, match="rank 49 does not fit a layer of width 48"):
        AdapterSet(clip, AdapterConfig(rank=49))
    AdapterSet(clip, AdapterConfig(rank=48))  # and nothing was left behind


def test_models_of_the_fixture_cover_both_kinds_of_hook():
    hooked = {site.hooked == site.linear for build in MODELS.values() for site in find_sites(build())}
    assert hooked == {True, False}
