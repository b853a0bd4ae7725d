"""The page: choose an image, name the classes, move α; and what the model says of the image everywhere along α."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from radapter_lite.alpha_curve import AlphaCurve, FeatureCurve
from radapter_lite.app.uploads import FORMATS, MAX_BYTES, decode_upload, parse_class_names, refuse_large
from radapter_lite.assets import filled
from radapter_lite.backbone import Backbone, load_clip
from radapter_lite.data import ImageSet, load_images
from radapter_lite.delta import Delta
from radapter_lite.tasks import Segmentation
from radapter_lite.view.pictures import Chart, Line, Thumbnails
from radapter_lite.view.plots import COLOURS, line_look
from radapter_lite.view.search_gallery import SearchGallery
from radapter_lite.view.segmentation import overlay
from radapter_lite.view.sliders import ALONG_ALPHA, STOPS, alpha_control, likeliest, play_button

CLASSES = ["camera", "key", "umbrella", "rocket", "coffee", "bicycle"]
CLASSES += ["robot", "tree", "lock", "moon", "gift", "scissors"]
FILES = ".png,.jpg,.jpeg,.webp,.gif,.bmp"  # what the browser's file dialog offers
SEARCHED = 240  # of PictoShift's test images
SHOWN_PIXELS, MASK_PIXELS = 180, 320  # the sides of the image that is asked about, and of its mask


class Page(widgets.VBox):
    """The page, as one widget.

    `examples`, `upload`, `names`, `use_names`, `slider`, `segment` are its controls, `message` says what was refused,
    `picture` and `mask` follow them. The delta was made on the backbone. The examples are test images of `classes`.
    """

    def __init__(self, backbone: Backbone, delta: Delta, images: ImageSet, classes: Sequence[str] = CLASSES) -> None:
        self._backbone, self._delta = backbone, delta
        self._classes = list(classes)
        self._text = FeatureCurve.of_texts(backbone, delta, backbone.describe(self._classes))
        examples = choose_examples(backbone, delta, images, self._text, self._classes)
        labels = examples.table[["class", "domain"]].agg(" · ".join, axis=1)
        pictures = [examples.image(row) for row in range(len(examples))]
        thumbnails = Thumbnails(pictures)
        self.examples = [widgets.Button(description=label, tooltip=label) for label in labels]
        for button, name, picture in zip(self.examples, thumbnails.names, pictures, strict=True):
            button.add_class(name).add_class("app-example")
            button.on_click(self._guarded(partial(self._take_example, picture)))
        self.upload = widgets.FileUpload(accept=FILES, description="Your own image")
        self.upload.observe(self._guarded(self._take_upload), names=["value", "error"])
        self.names = widgets.Textarea(", ".join(classes), continuous_update=False, rows=2)
        self.names.observe(self._guarded(self._take_names), names="value")
        self.use_names = widgets.Button(description="Use these names")  # to click it is to leave the box, which tells
        self.message = widgets.HTML().add_class("app-message")
        self.slider = alpha_control("α", width="560px")
        self.slider.observe(lambda _: self._show(), names="value")
        self.play = play_button(self.slider)
        self.picture, self._style = widgets.HTML(), widgets.HTML()
        self.segment = widgets.ToggleButton(description="Segment", tooltip="Paint what has each of the names")
        self.segment.observe(lambda _: self._paint(), names="value")
        self.mask = widgets.HTML()
        self._take_example(pictures[0], self.examples[0])

        head = filled("widgets/head.html", name=backbone.name, data=delta.meta.get("data"))
        limits = f"{', '.join(FORMATS)}, at most {MAX_BYTES / 1e6:g} MB; kept in this computer's memory only"
        rows = [
            widgets.HTML(head + thumbnails.style),
            widgets.HTML("<h2>An image</h2>"),
            widgets.HBox(self.examples).add_class("app-row"),
            widgets.HBox([self.upload, widgets.HTML(f"<small>{limits}</small>")]).add_class("app-row"),
            widgets.HTML("<h2>Class names, with commas between them</h2>"),
            widgets.HBox([self.names, self.use_names]).add_class("app-row"),
            self.message,
            widgets.HBox([self.play, self.slider]).add_class("app-row"),
            self._style,
            self.picture,
            widgets.HBox([self.segment, self.mask]).add_class("app-row"),
        ]
        super().__init__(rows)
        self.add_class("app-page")

    def _take_example(self, image: Image.Image, button: widgets.Button) -> None:
        self._take_image(image, button.description)
        button.add_class("app-chosen")

    def _take_upload(self, _: Any) -> None:
        """The page's script stops a file that is too large before it is sent, and tells its size as an error."""
        files, error = self.upload.value, self.upload.error
        self.upload.value, self.upload.error = (), ""  # so that the bytes go, and the same file may be given again
        if error:
            refuse_large(int(error) if error.isdigit() else 0, "The file")
            raise ValueError("The file could not be read by the browser: choose it again.")
        for file in files:  # one, or none once it was emptied
            self._take_image(decode_upload(bytes(file["content"]), file["name"]), file["name"])

    def _take_names(self, _: Any) -> None:
        self._classes = parse_class_names(self.names.value)
        self._say("Reading the class names…")
        self._text = FeatureCurve.of_texts(self._backbone, self._delta, self._backbone.describe(self._classes))
        self._ask()

    def _guarded(self, act: Callable[[Any], None]) -> Callable[[Any], None]:
        """The message is empty after what succeeded, and the refusal's sentence after what did not."""

        def guarded(event: Any) -> None:
            try:
                act(event)
            except ValueError as error:
                self._say(str(error))
            else:
                self._say("")

        return guarded

    def _take_image(self, image: Image.Image, label: str) -> None:
        self._source, self._label, self._thumbnail = image, label, Thumbnails([image], SHOWN_PIXELS)
        self._image = FeatureCurve.of_images(self._backbone, self._delta, self._backbone.preprocess(image)[None])
        self._parts: tuple[Segmentation, FeatureCurve] | None = None
        for button in self.examples:
            button.remove_class("app-chosen")
        self._ask()

    def _ask(self) -> None:
        self._answer = Answer(AlphaCurve(self._image, self._text, self._backbone.temperature), self._classes)
        self._style.value = self._thumbnail.style + self._answer.chart.style
        self._show()

    def _show(self) -> None:
        alpha, answer = round(self.slider.value, 2), self._answer
        stop = STOPS.index(alpha)
        image = {"picture": self._thumbnail.names[0], "side": SHOWN_PIXELS, "label": self._label}
        said = {"answer": answer, "likeliest": likeliest(answer.probabilities[stop], self._classes)}
        self.picture.value = filled("widgets/answer.html", alpha=alpha, stop=stop, **image, **said)
        self._paint()

    def _paint(self) -> None:
        """The mask of the image at the slider's α, if it is asked for; its regions are encoded once along α."""
        if not self.segment.value:
            self.mask.value = ""
            return
        if self._parts is None:
            task = Segmentation.of_picture(self._source, self._classes, self._backbone.temperature)
            self._parts = task, FeatureCurve.of_images(self._backbone, self._delta, task.images)
        task, regions = self._parts
        alpha = round(self.slider.value, 2)
        labels = task.paint(regions.at(alpha) @ self._text.at(alpha).T)[0]
        hues = {label: COLOURS[label % len(COLOURS)] for label in np.unique(labels[labels >= 0]).tolist()}
        mask = Thumbnails([overlay(task.scenes[0].image, labels, hues)], MASK_PIXELS)
        names = [(self._classes[label], hue) for label, hue in hues.items()]
        self.mask.value = filled("widgets/mask.html", mask=mask, side=MASK_PIXELS, alpha=alpha, names=names)

    def _say(self, sentence: str) -> None:
        self.message.value = f"<div role='alert'>{html.escape(sentence)}</div>" if sentence else ""


def open_page(delta: str, **backbone: Any) -> widgets.Tab:
    """A saved delta's `Page`, and beside it a search among PictoShift's test images; `backbone` is for `load_clip`."""
    clip, own, images = load_clip(**backbone), Delta.load(delta), load_images()
    tabs = widgets.Tab([Page(clip, own, images), widgets.HTML("Encoding images…")], titles=("Classify", "Search"))

    def search(_: Any) -> None:  # what takes some seconds, and not every visitor asks for
        tabs.unobserve(search, "selected_index")
        some = images.test.take(range(0, len(images.test), len(images.test) // SEARCHED))
        tabs.children = [tabs.children[0], SearchGallery(clip, own, some, "computer").add_class("app-page")]

    tabs.observe(search, "selected_index")
    return tabs


@dataclass(frozen=True, eq=False)
class Answer:
    """The curve of one image, and the names of its classes in the curve's order."""

    curve: AlphaCurve
    classes: Sequence[str]

    @cached_property
    def probabilities(self) -> Tensor:
        """In percent, at every stop of the slider [101, C]."""
        return 100 * torch.cat([self.curve.probabilities(alpha) for alpha in STOPS])

    @property
    def flips(self) -> list[tuple[float, str]]:
        """The α from which on each answer stands, and the answer; the first stands from α = 0."""
        tops = self.probabilities.argmax(1).tolist()
        starts = [stop for stop, top in enumerate(tops) if stop == 0 or top != tops[stop - 1]]
        return [(STOPS[stop], self.classes[tops[stop]]) for stop in starts]

    def leaders(self) -> list[int]:
        """The likeliest classes of those that reach 1% somewhere along α, by place in `classes`; five at most."""
        highest, labels = self.probabilities.amax(0).topk(min(5, len(self.classes)))
        return labels[highest >= 1].tolist()

    @cached_property
    def chart(self) -> Chart:
        """The leaders' probabilities along α."""
        lines = [
            Line(STOPS, self.probabilities[:, label].tolist(), line_look(place, self.classes[label]))
            for place, label in enumerate(self.leaders())
        ]
        about = {"title": "probability along α", "ylabel": "probability (%)", "ylim": (-3, 103)}
        return Chart.of_lines(lines, (360, 270), **ALONG_ALPHA | about)


def choose_examples(
    backbone: Backbone, delta: Delta, images: ImageSet, text: FeatureCurve, classes: Sequence[str]
) -> ImageSet:
    """Eight test images of some classes, drawn at random, those first whose answer tuning flips.

    One image of each class and domain is asked, at α = 0 and 1; where fewer than eight flip, others follow. `text` is
    the curve of `classes`. Raises ValueError if there is no test image of the classes.
    """
    test = images.select(split="test", classes=classes)
    one_each = test.table.drop_duplicates(["class", "domain"]).index.to_numpy()
    candidates = test.take(np.random.default_rng(0).permutation(one_each))
    image = FeatureCurve.of_images(backbone, delta, candidates, nodes=2)
    before, after = ((image.at(alpha) @ text.at(alpha).T).argmax(1) for alpha in (0, 1))
    return candidates.take((before == after).int().argsort(stable=True)[:8].tolist())
