"""The widgets follow their sliders, and what they show is what the curve says."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import fill, make_backbone, make_folder
from matplotlib import pyplot as plt

from radapter_lite import assets
from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.alpha_curve import AlphaCurve, FeatureCurve
from radapter_lite.data import ImageSet, load_images
from radapter_lite.tasks.classification import accuracy_by_domain
from radapter_lite.view.comparison_plots import plot_map
from radapter_lite.view.pictures import Chart, Line, Thumbnails
from radapter_lite.view.plots import line_look, look, use_style
from radapter_lite.view.sliders import AlphaSlider, alpha_slider, encoder_map, likeliest


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    folder = make_folder(tmp_path_factory.mktemp("images"), ("photo", "sketch"))
    return load_images(folder, id_domain="photo").select(split="test")


@pytest.fixture(scope="module")
def curve(images) -> AlphaCurve:
    """A curve along which many images change their class."""
    backbone = make_backbone()
    adapters = AdapterSet(backbone.model, AdapterConfig())
    fill(adapters, scale=0.1)
    delta = adapters.delta()
    adapters.remove()
    return AlphaCurve.measure(backbone, delta, images, nodes=5)


@pytest.fixture(scope="module")
def reverse(curve) -> AlphaCurve:
    """The same way walked back."""
    image, text = (FeatureCurve(each.nodes, each.values.flip(0)) for each in (curve.image, curve.text))
    return AlphaCurve(image, text, curve.temperature)


@pytest.fixture
def slider(curve, reverse, images) -> AlphaSlider:
    return alpha_slider({"there": curve, "<back>": reverse}, images)


def text(slider) -> str:
    return re.sub(r"<[^>]+>", " ", slider.picture.value)


def shown(slider, domain: str) -> str:
    return re.search(rf">{domain}(?: \(ID\))?</td><td[^>]*>([\d.]+%)", slider.picture.value)[1]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_numbers_and_bars_are_those_of_alpha(slider, curve, images, alpha):
    slider.slider.value = alpha
    for row in accuracy_by_domain(curve.at(alpha), images).itertuples():
        assert shown(slider, row.domain) == f"{row.accuracy:.1f}%"
    assert f"α = {alpha:.2f}" in text(slider)
    probabilities = (curve.at(alpha) / curve.temperature).softmax(1)
    for row in slider.examples:
        (first, percent), *_ = likeliest(100 * probabilities[row], images.classes)
        mark = "✓" if first == images.table["class"].iloc[row] else "✗"
        assert re.search(rf"{mark} {first} +{percent:.0f}%", text(slider))


def test_flips_are_counted_from_zero_shot(slider, curve, images):
    slider.slider.value = 0.0
    assert re.search(rf"\b0\s+of {len(images)} images", text(slider))
    slider.slider.value = 1.0
    before, now = curve.at(0.0).argmax(1), curve.at(1.0).argmax(1)
    changed = int((before != now).sum())
    assert changed > 0
    assert re.search(rf"\b{changed}\s+of {len(images)} images", text(slider))
    right = int(((before != now) & (now == images.labels)).sum())
    assert f"✓ {right}" in text(slider)


def test_the_menu_shows_the_other_method(slider, images):
    slider.slider.value = 1.0
    there = shown(slider, "photo"), shown(slider, "sketch")
    slider.method.value = "<back>"
    slider.slider.value = 0.0  # its zero-shot is the first one's tuned model
    assert (shown(slider, "photo"), shown(slider, "sketch")) == there
    assert "<back>" not in slider.picture.value and "&lt;back&gt;" in slider.picture.value


def test_the_play_button_and_the_slider_move_each_other(slider):
    slider.play.value = 40
    assert slider.slider.value == pytest.approx(0.4)
    slider.slider.value = 0.7
    assert slider.play.value == 70


def test_the_point_moves_across_the_chart(slider):
    places = []
    for alpha in (0.0, 0.5, 1.0):
        slider.slider.value = alpha
        places.append(float(re.search(r'<circle cx="([\d.]+)"', slider.picture.value)[1]))
    assert places == sorted(places) and places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.2)


def test_a_benchmark_times_every_move_and_puts_the_slider_back(slider):
    slider.slider.value = 0.35
    seen = []
    slider.slider.observe(lambda change: seen.append(change["new"]), names="value")
    times = slider.benchmark(7)
    assert len(times) == 7 and all(milliseconds > 0 for milliseconds in times)
    assert len(seen) == 8 and slider.slider.value == 0.35


def test_pictures_are_sent_once_and_moves_are_small(slider):
    assert "data:" not in slider.picture.value
    assert slider.children[1].value.count("data:image/jpeg") > 0
    assert len(slider.picture.value) < 25_000
    styles, picture = slider.children[1].value, slider.picture.value
    assert styles.count("data:image/svg+xml") == 3  # each method's chart and the trade-off
    shown = set(re.findall(r'class="(picture-\w+)"', picture))
    assert len(shown) > 3 and all(f".{name}{{background" in styles for name in shown)


def test_a_method_of_ones_own_has_its_look(slider):
    assert f'stroke="{look("<back>")["color"]}"' in slider.picture.value


def test_one_domain_has_no_trade_off(curve, images):
    rows = (images.table["domain"] == "photo").to_numpy().nonzero()[0]
    own = AlphaCurve(FeatureCurve(curve.image.nodes, curve.image.values[:, rows]), curve.text, 0.05)
    photos = images.take(rows)
    assert "trade-off" not in alpha_slider({"there": own}, photos).picture.value
    with pytest.raises(ValueError, match="no OOD domain"):
        encoder_map(own, photos)


def test_curves_of_other_images_are_refused(curve, images):
    with pytest.raises(ValueError, match="give the images it was measured on"):
        alpha_slider({"there": curve}, images.take([0, 1]))
    with pytest.raises(ValueError, match="needs a curve"):
        alpha_slider({}, images)


def test_the_map_shows_the_pair_under_its_sliders(curve, images):
    shown = encoder_map(curve, images, steps=5)
    for image, text_alpha in ((0.25, 1.0), (1.0, 0.0)):
        shown.image.value, shown.text.value = image, text_alpha
        accuracies = accuracy_by_domain(curve.at(image, text_alpha), images)
        expected = [*accuracies["accuracy"], accuracies["accuracy"].mean()]
        found = re.findall(r">([\d.]+)% here</b>", shown.picture.value)
        assert found == [f"{value:.1f}" for value in expected]
    assert all(len(chart.show([])) < 300 and chart.style in shown.children[1].value for chart in shown._maps.values())


def drawing(chart: Chart) -> str:
    """The SVG that matplotlib drew."""
    return base64.b64decode(re.search(r"base64,([^)]+)", chart.style)[1]).decode()


def test_points_lie_on_the_line_that_matplotlib_drew():
    x, y = (0.0, 0.25, 0.5, 1.0), (3.0, 40.0, 7.0, 90.0)
    chart = Chart.of_lines([Line(x, y, line_look(1, "a"))], (300, 200), title="t", xlabel="x", xlim=(-0.1, 1.1))
    drawn = drawing(chart)
    assert 'viewBox="0 0 300 200"' in drawn
    path = re.search(r'<path d="(M[^"]+)"[^>]*stroke: #d55e00', drawn)[1]
    corners = np.array(re.findall(r"[-\d.]+", path), float).reshape(-1, 2)
    np.testing.assert_allclose([chart.place(*point) for point in zip(x, y, strict=True)], corners, atol=1e-4)


def test_a_chart_is_the_same_in_every_style_and_escapes_its_words():
    def make() -> Chart:
        return Chart.of_lines([Line((0, 1), (0, 1), line_look(0, "a"))], title="t & $u$", xlabel="x < y")

    chart = make()
    assert 'role="img" aria-label="t &amp; $u$"' in chart.show([])
    assert "t &amp; $u$" in drawing(chart) and "x &lt; y" in drawing(chart)
    use_style()
    assert make().style == chart.style and not plt.get_fignums()


def test_bars_name_the_most_probable_first():
    top = likeliest(torch.tensor([0.0, 73, 27, 0]), ["a", "b", "<c>", "d"])
    bars = assets.TEMPLATES.get_template("widgets/parts.html.jinja2").module.bars
    names = re.findall(r'title="([^"]+)"', bars(top, {"<c>"}))
    assert names == ["b", "&lt;c&gt;", "a"]
    assert "✗ b" in bars(top, {"<c>"}) and "73%" in bars(top, {"<c>"})
    assert "✗" not in bars(likeliest(torch.tensor([10.0, 30]), ["a", "b"]))


def test_thumbnails_of_one_image_share_their_bytes(images):
    both = Thumbnails([images.image(0), images.image(0)])
    assert both.names[0] == both.names[1] and both.style.count("data:") == 1


def test_a_maps_point_stands_in_the_middle_of_its_cell():
    ends = (0.0, 0.5, 1.0)
    table = pd.DataFrame([(i, t, 10 * i + t) for i in ends for t in ends], columns=["image_alpha", "text_alpha", "id"])
    chart = Chart(lambda axes: plot_map(axes, table, "id"), (320, 270))
    found = re.search(r'width="3" height="3" transform="matrix\(([^)]+)\)"', drawing(chart))
    cell, _, _, upwards, left, bottom = map(float, found[1].split())
    for x, y in ((0.0, 1.0), (0.5, 0.0)):
        assert chart.place(x, y) == pytest.approx(
            (left + (2 * x + 0.5) * cell, bottom + (2 * y + 0.5) * upwards), abs=1e-4
        )
