"""Words to type, an α to move, and the images that the model finds for them."""

import ipywidgets as widgets

from radapter_lite.alpha_curve import FeatureCurve
from radapter_lite.assets import filled
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.view.pictures import Thumbnails
from radapter_lite.view.sliders import alpha_control, play_button

SHOWN = 20  # images found


class SearchGallery(widgets.VBox):
    """The images nearest to what is typed, best first, at the slider's α; nothing is encoded while it moves.

    `query`, `slider` and `play` are its controls, `found` the rows of the images that `picture` shows. Small copies of
    all images, some hundreds, are sent to the page. What is typed is in no prompt. `curve`: the images', if known.
    """

    def __init__(
        self, backbone: Backbone, delta: Delta, images: ImageSet, query: str, curve: FeatureCurve | None = None
    ) -> None:
        thumbnails = Thumbnails(images.image(row) for row in range(len(images)))
        about = images.table[["class", "domain"]].agg(" · ".join, axis=1)
        self._pictures = list(zip(thumbnails.names, about, strict=True))
        self._curve = curve or FeatureCurve.of_images(backbone, delta, images)
        self._encode = lambda words: FeatureCurve.of_texts(backbone, delta, [[words]])
        self.found: list[int] = []
        self.query = widgets.Text(query, description="search", continuous_update=False)
        self.slider = alpha_control("α")
        self.play = play_button(self.slider)
        self.picture = widgets.HTML()
        self.query.observe(lambda change: self._ask(), names="value")
        self.slider.observe(lambda change: self._show(), names="value")
        self._ask()
        controls = widgets.HBox([self.query, self.play, self.slider])
        super().__init__([controls, widgets.HTML(thumbnails.style), self.picture])

    def _ask(self) -> None:
        self._text = self._encode(self.query.value)
        self._show()

    def _show(self) -> None:
        alpha = round(self.slider.value, 2)
        near = self._curve.at(alpha) @ self._text.at(alpha)[0]  # (N)
        values, rows = near.topk(min(SHOWN, len(near)))
        self.found = rows.tolist()
        found = [(*self._pictures[row], value) for row, value in zip(self.found, values.tolist(), strict=True)]
        self.picture.value = filled("widgets/search.html", query=self.query.value, alpha=alpha, found=found)
