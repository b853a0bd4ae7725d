"""Words to type, an α to move, and the images that the model finds for them."""

import html

import ipywidgets as widgets
import torch

from radapter_lite.alpha_curve import FeatureCurve
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.view import slider_view as view
from radapter_lite.view.sliders import alpha_control, play_button


class SearchGallery(widgets.VBox):
    """The images nearest to what is typed, best first, at the slider's α; nothing is encoded while it moves.

    `query`, `slider` and `play` are its controls, `found` the rows of the images that `picture` shows. Small copies of
    all images, some hundreds at most, are sent to the page. What is typed is put into no prompt. `curve` is that of the
    images, if it is known.
    """

    def __init__(
        self,
        backbone: Backbone,
        delta: Delta,
        images: ImageSet,
        query: str,
        curve: FeatureCurve | None = None,
        shown: int = 20,
    ) -> None:
        self._about = images.table[["class", "domain"]].agg(" · ".join, axis=1).tolist()
        self._curve = curve or FeatureCurve.of_images(backbone, delta, images)
        self._encode = lambda words: FeatureCurve.of_texts(backbone, delta, [[words]])
        self._shown, self.found = min(shown, len(images)), list[int]()
        self._thumbnails = view.Thumbnails(images.image(row) for row in range(len(images)))
        self.query = widgets.Text(query, description="search", continuous_update=False)
        self.slider = alpha_control("α")
        self.play = play_button(self.slider)
        self.picture = widgets.HTML()
        self.query.observe(lambda change: self._ask(), names="value")
        self.slider.observe(lambda change: self._show(), names="value")
        self._ask()
        controls = widgets.HBox([self.query, self.play, self.slider])
        super().__init__([controls, widgets.HTML(self._thumbnails.style), self.picture])

    def _ask(self) -> None:
        self._text = self._encode(self.query.value)
        self._show()

    def _show(self) -> None:
        alpha = round(self.slider.value, 2)
        near = self._curve.at(alpha) @ self._text.at(alpha)[0]  # (N)
        values, rows = torch.topk(near, self._shown)
        self.found = rows.tolist()
        items = [
            f'<div title="{html.escape(self._about[row])}" style="font-size:11px;color:#555">'
            f"{self._thumbnails.show(row, self._about[row])}{value:.2f}</div>"
            for value, row in zip(values.tolist(), self.found, strict=True)
        ]
        title = f"<b>{html.escape(self.query.value)}</b> at α = {alpha:.2f}: cosine similarity under each image"
        self.picture.value = view.card(title + view.row(items))
