"""The page's parts without a browser: what a visitor gives, what the model answers, what the widgets show."""

import http.client
import io
import json
import socket
import subprocess
import sys
import time
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import fill, make_backbone, make_folder
from PIL import Image

from radapter_lite import assets, load_clip, load_images
from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.alpha_curve import AlphaCurve, FeatureCurve
from radapter_lite.app import page as page_module
from radapter_lite.app import uploads
from radapter_lite.app.page import Answer, Page, choose_examples, open_page
from radapter_lite.app.server import TEMPLATE
from radapter_lite.app.uploads import decode_upload, parse_class_names
from radapter_lite.assets import DEMO_DELTA
from radapter_lite.backbone import Backbone
from radapter_lite.cli import main
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.encoding import text_head
from radapter_lite.publish.kernel import ThisInterpreter
from radapter_lite.view.search_gallery import SearchGallery
from radapter_lite.view.sliders import STOPS

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def delta(backbone: Backbone) -> Delta:
    adapters = AdapterSet(backbone.model, AdapterConfig())
    fill(adapters, 0.05)
    delta = adapters.delta()
    adapters.remove()
    return delta


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return load_images(make_folder(tmp_path_factory.mktemp("images"), ("photo", "sketch")), id_domain="photo")


@pytest.fixture
def page(backbone: Backbone, delta: Delta, images: ImageSet) -> Page:
    return Page(backbone, delta, images, images.classes)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG of few bytes that claims to be of this size."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = b"".join([width.to_bytes(4, "big"), height.to_bytes(4, "big"), b"\x08\x02\x00\x00\x00"])
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\x00" * 100)), (b"IEND", b"")):
        parts += [len(body).to_bytes(4, "big"), name, body, zlib.crc32(name + body).to_bytes(4, "big")]
    return b"".join(parts)


# --- uploads ---


@pytest.mark.parametrize("kind", uploads.FORMATS)
def test_every_type_is_read_whatever_its_name(kind: str) -> None:
    image = decode_upload(encoded(noise(), kind), "no suffix")
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert np.abs(np.asarray(image, int) - np.asarray(noise(), int)).mean() < 60


def test_transparency_is_white_and_photos_stand_upright() -> None:
    drawing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert decode_upload(encoded(drawing), "a").getpixel((3, 3)) == (255, 255, 255)
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decode_upload(encoded(noise(40, 30), "JPEG", exif=turned), "a").size == (30, 40)
    grey = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    assert decode_upload(encoded(grey), "a").getpixel((3, 3)) == (128, 128, 128)


def test_an_upload_is_seen_as_the_same_file_is_when_tuning(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 8
    photo = noise(2100, 2300)
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "a.jpg").write_bytes(content := encoded(photo, "JPEG", exif=turned))
    tuned_on = load_images(tmp_path).image(0)
    assert tuned_on.size == (1150, 1050)
    assert np.array_equal(np.asarray(decode_upload(content, "a")), np.asarray(tuned_on))


def test_the_first_frame_of_several_is_taken() -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    moving = encoded(red, "GIF", save_all=True, append_images=[blue])
    assert decode_upload(moving, "a").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "a.png is no PNG, JPEG, WebP, GIF or BMP image"),
        (b"%PDF-1.7 and more", "a.png is no PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.png is no PNG"),
        (encoded(noise(), "TIFF"), "a.png is no PNG"),
        (encoded(noise(), "PDF"), "a.png is no PNG"),
        (encoded(noise(), "JPEG")[:700], "a.png is truncated or damaged"),
        (encoded(noise(), "BMP")[:-900], "a.png is truncated or damaged"),
        (encoded(noise(), "GIF")[:900], "a.png is truncated or damaged"),
        (png_header(5000, 4001), "a.png has more than 20 million pixels"),
        (png_header(60000, 60000), "a.png has more than 20 million pixels"),
        (png_header(20000, 1), "a.png is 20000 × 1 pixels: give an image at most 20 times"),
        (b"\x00" * 5_000_001, "a.png has 5.0 MB: give an image of at most 5 MB"),
    ],
)
def test_refusals_are_one_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError) as refusal:
        decode_upload(content, "a.png")
    assert str(refusal.value).startswith(sentence)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_any_damage_is_a_refusal_or_an_image() -> None:
    rng = np.random.default_rng(0)
    for kind in uploads.FORMATS:
        whole = encoded(noise(), kind)
        for _ in range(40):
            damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            for place in rng.integers(0, len(damaged), 8):
                damaged[place] = rng.integers(256)
            try:
                assert decode_upload(bytes(damaged), "a").mode == "RGB"
            except ValueError as refusal:
                assert str(refusal).startswith("a ")


def test_class_names_are_trimmed_and_stand_once() -> None:
    text = " cat, dog ,,\n  traffic\t light \n Dog, {}, \x00bird\x1b"
    assert parse_class_names(text) == ["cat", "dog", "traffic light", "{}", "bird"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Type two class names or more"),
        (" , \n,", "Type two class names or more"),
        ("cat, Cat", "Type two class names or more"),
        (", ".join(map(str, range(201))), "These are 201 class names: give at most 200."),
        ("cat, " + "a" * 61, "The class name aaaaaaaaaaaaaaaaaaaa… has 61 characters: give it at most 60."),
    ],
)
def test_class_names_that_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_class_names(text)


# --- the answer ---


def test_an_answer_is_the_models_own_along_alpha(backbone: Backbone, delta: Delta) -> None:
    classes = ["red", "green", "blue thing", "sky"]
    pixels = backbone.preprocess(noise())[None]
    curve = AlphaCurve(
        FeatureCurve.of_images(backbone, delta, pixels),
        FeatureCurve.of_texts(backbone, delta, backbone.describe(classes)),
        backbone.temperature,
    )
    answer = Answer(curve, classes)
    for alpha in (0.0, 0.37, 1.0):
        with torch.no_grad(), delta.applied(backbone.model, alpha):
            features = backbone.model.encode_image(pixels, normalize=True)
            exact = 100 * (features @ text_head(backbone, classes).T / backbone.temperature).softmax(1)[0]
        assert torch.allclose(answer.probabilities[STOPS.index(alpha)], exact, atol=0.5)
    highest = answer.probabilities.amax(0)
    leaders = answer.leaders()
    assert highest[leaders].tolist() == highest[highest >= 1].sort(descending=True).values.tolist()


def test_flips_are_where_the_answer_changes() -> None:
    nodes = np.array([0.0, 1.0])
    text = FeatureCurve(nodes, torch.eye(2)[None].repeat(2, 1, 1))
    image = FeatureCurve(nodes, torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    answer = Answer(AlphaCurve(image, text, 0.05), ["cat", "dog"])
    (start, first), (turn, then) = answer.flips
    assert (start, first, then) == (0.0, "cat", "dog") and turn in (0.5, 0.51)
    say = assets.TEMPLATES.get_template("widgets/parts.html.jinja2").module.flips
    said = f"The answer flips: “cat” at α = 0, from α = {turn:.2f} on “dog”."
    assert say(answer.flips).replace("&nbsp;", " ").strip() == said
    still = FeatureCurve(nodes, torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]))
    assert say(Answer(AlphaCurve(still, text, 0.05), ["cat", "dog"]).flips).strip() == "The answer is “cat” at every α."


def test_examples_that_flip_come_first(backbone: Backbone, delta: Delta, images: ImageSet) -> None:
    text = FeatureCurve.of_texts(backbone, delta, backbone.describe(images.classes))
    everything = choose_examples(backbone, delta, images, text, images.classes)
    assert len(everything) == 6 and set(everything.table["split"]) == {"test"}
    assert not everything.table.duplicated(["class", "domain"]).any()
    tops = []
    for alpha in (0.0, 1.0):
        with delta.applied(backbone.model, alpha), torch.no_grad():
            pixels = everything.tensor(backbone.preprocess)
            features = backbone.model.encode_image(pixels, normalize=True)
            tops.append((features @ text_head(backbone, everything.classes).T).argmax(1))
    flips = (tops[0] != tops[1]).tolist()
    assert flips == sorted(flips, reverse=True)


# --- the page ---


def give(page: Page, content: bytes, name: str) -> None:
    """What the browser does with a chosen file."""
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    page.upload.set_trait("value", (file | {"last_modified": datetime.now(timezone.utc)},))


def test_the_slider_moves_the_picture(page: Page) -> None:
    before = page.picture.value
    page.slider.value = 0.9
    assert "α = 0.90" in page.picture.value != before
    page.play.value = 20
    assert page.slider.value == pytest.approx(0.2) and "α = 0.20" in page.picture.value


def test_an_example_and_an_upload_are_asked_about(page: Page) -> None:
    first = page.picture.value
    page.examples[1].click()
    assert page.picture.value != first
    assert "app-chosen" in page.examples[1]._dom_classes and "app-chosen" not in page.examples[0]._dom_classes
    give(page, encoded(noise()), "mine.png")
    assert "mine.png" in page.picture.value and page.message.value == ""
    assert page.upload.value == ()  # the bytes are not kept
    assert "app-chosen" not in page.examples[1]._dom_classes


def test_a_refused_upload_says_why_and_changes_nothing(page: Page) -> None:
    before = page.picture.value
    give(page, b"no image", "notes.txt")
    assert "notes.txt is no PNG" in page.message.value and page.picture.value == before
    page.upload.error = "12000000"  # what the page's script says of a file that it did not send
    assert "The file has 12.0 MB: give an image of at most 5 MB." in page.message.value
    page.upload.error = "NotReadableError"
    assert "could not be read by the browser" in page.message.value
    give(page, encoded(noise()), "mine.png")
    assert page.message.value == ""


def test_other_class_names_are_other_answers(page: Page) -> None:
    page.names.value = "sky, sea, meadow"
    assert all(name in page.picture.value for name in ("sky", "sea", "meadow"))
    page.names.value = "sky"
    assert "Type two class names" in page.message.value and "meadow" in page.picture.value
    page.names.value = "sky, sea"
    assert page.message.value == "" and "meadow" not in page.picture.value


def test_what_a_visitor_types_is_never_html(page: Page) -> None:
    page.names.value = f"{SCRIPT}, <img src=x onerror=alert(1)>"
    assert "&lt;script&gt;" in page.picture.value and "&lt;img" in page.picture.value
    give(page, encoded(noise()), SCRIPT)
    assert page.picture.value.count("&lt;script&gt;") > 1
    give(page, b"no image", SCRIPT)
    assert "&lt;script&gt;" in page.message.value
    for widget in (page.picture, page.message):
        assert "<script" not in widget.value and "<img" not in widget.value


def test_the_second_tab_searches_once_it_is_opened(
    backbone: Backbone, delta: Delta, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta.save(tmp_path / "mine")
    monkeypatch.setattr(page_module, "load_clip", lambda: backbone)
    monkeypatch.setattr(page_module, "load_images", lambda: images)
    monkeypatch.setattr(page_module, "Page", lambda *about: Page(*about, images.classes))
    monkeypatch.setattr(page_module, "SEARCHED", 4)
    tabs = open_page(str(tmp_path / "mine"))
    assert tabs.titles == ("Classify", "Search") and isinstance(tabs.children[0], Page)
    assert not isinstance(tabs.children[1], SearchGallery)
    tabs.selected_index = 1
    gallery = tabs.children[1]
    assert isinstance(gallery, SearchGallery) and len(gallery.found) >= 4
    gallery.query.value = SCRIPT
    assert "&lt;script&gt;" in gallery.picture.value and "<script" not in gallery.picture.value
    tabs.selected_index = 0
    tabs.selected_index = 1
    assert tabs.children[1] is gallery


# --- the command ---


def test_the_demonstration_fits_the_embedded_backbone() -> None:
    delta, clip = Delta.load(DEMO_DELTA), load_clip()
    assert {tensor.dtype for tensor in delta.tensors.values()} == {torch.float16}
    pixels = torch.zeros(1, 3, 48, 48)
    with torch.no_grad():
        before = clip.model.encode_image(pixels, normalize=True)
        with delta.applied(clip.model, 1.0):
            after = clip.model.encode_image(pixels, normalize=True)
    assert not torch.allclose(before, after, atol=1e-3)


def test_a_port_that_is_taken_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["app", "--no-browser", "--port", str(port)]) == 1
    assert f"port {port} is not free" in capsys.readouterr().err


SERVE = """
import sys

from nbformat import v4
from radapter_lite.app import server

server._notebook = lambda _: v4.new_notebook(cells=[v4.new_code_cell("1 + 1")])  # no model
server.serve({}, int(sys.argv[1]), browser=False)
"""


def test_a_site_that_leads_its_name_here_is_refused() -> None:
    """DNS rebinding: the request reaches this machine, and names the site."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(port)])

    def status(host: str) -> int:
        connection = http.client.HTTPConnection("localhost", port, timeout=120)
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status

    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                assert status("evil.example") == 403
                break
            except ConnectionRefusedError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        assert status(f"evil.example:{port}") == 403
        assert status(f"localhost:{port}") == status(f"127.0.0.1:{port}") == 200
    finally:
        server.terminate()
        server.wait(60)


def test_a_delta_of_another_model_is_refused_at_once(
    backbone: Backbone, delta: Delta, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta.save(tmp_path / "mine")
    assert main(["app", "--no-browser", "--delta", str(tmp_path / "mine"), "--backbone", "picto"]) == 1
    assert "it is for a model that was not named" in capsys.readouterr().err


def test_the_kernel_is_this_interpreter_without_a_registered_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "kernels" / "python3"
    own.mkdir(parents=True)
    (own / "kernel.json").write_text(json.dumps({"argv": ["elsewhere"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert list(ThisInterpreter().get_all_specs()) == ["python3"]
    assert ThisInterpreter().get_kernel_spec("python3").argv[0] == sys.executable


def test_the_template_is_in_the_package() -> None:
    assert "max_bytes" in (TEMPLATE / "index.html.j2").read_text()
