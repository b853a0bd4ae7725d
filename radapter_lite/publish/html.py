"""Notebooks and Markdown as HTML that needs no network: no scripts, formulas as MathML, images and style inline."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from bs4 import BeautifulSoup, Tag
from latex2mathml.converter import convert as to_mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image
from pygments.formatters import HtmlFormatter

from radapter_lite.assets import filled
from radapter_lite.files import write_text
from radapter_lite.publish.notebook import METRIC_MIME, WIDGET_MIME

_FIGURE = "Figure"  # what is said of one that nothing describes
_WIDGET_NOTE = "<p><em>An interactive widget stands here when the notebook runs in JupyterLab.</em></p>"


def to_html(path: str | Path, out: str | Path) -> Path:
    """Write the notebook `path` as one self-contained HTML file `out`, and return its path.

    Widgets live in running notebooks only: a sentence says so where one stood. Recorded metrics are left out. The
    figures that it saved are looked for in ../figures, for what they say to screen readers.
    """
    nb, out = nbformat.read(path, as_version=4), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    body = notebook_body(nb, Path(path).parent.parent / "figures")
    relink(body, lambda name: name.removesuffix(".ipynb") + ".html" if name.endswith(".ipynb") else name)
    write_text(out, page(title(nb.cells[0].source if nb.cells else "") or Path(path).stem, str(body)))
    return out


def page(name: str, body: str, **links: Any) -> str:
    """A whole page of the title `name`; `links` are those of a site, as page.html.jinja2 takes them."""
    light, dark = (HtmlFormatter(style=code).get_style_defs(".highlight") for code in ("default", "github-dark"))
    return filled("book/page.html", title=name, body=body, light=light, dark=dark, **links)


def title(markdown: str) -> str:
    """The first heading of Markdown, as plain text, or nothing."""
    heading = markdown_body(markdown).h1
    return heading.get_text() if heading else ""


def notebook_body(nb: NotebookNode, figures: Path) -> BeautifulSoup:
    """An executed notebook, which is not changed, as a tree of HTML without the page around it.

    The files in `figures`, the folder that its figures were saved to, hold descriptions for screen readers.
    """
    nb = nbformat.from_dict(nb)
    nb.metadata.pop("widgets", None)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs = [output for output in cell.outputs if METRIC_MIME not in output.get("data", ())]
        saved = [figures / f"{name}.png" for name in re.findall(r"save_figure\(\s*\w+,\s*[\"'](\w+)", cell.source)]
        described = iter([description(file) for file in saved if file.is_file()])
        for output in cell.outputs:
            if WIDGET_MIME in output.get("data", ()):
                output.data = NotebookNode({"text/html": _WIDGET_NOTE})
            elif "image/png" in output.get("data", ()):
                output.metadata.setdefault("image/png", NotebookNode())["alt"] = next(described, _FIGURE)
    # The body of a page alone: nbconvert's own pages fetch MathJax, require.js and more.
    bare = {"template_name": "basic", "exclude_input_prompt": True, "exclude_output_prompt": True}
    exporter = HTMLExporter(filters={"markdown2html": _rendered}, **bare)
    body = BeautifulSoup(exporter.from_notebook_node(nb)[0], "html.parser")
    for cell, drawn in zip(code, body.find_all(class_="code_cell"), strict=True):
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            for source in drawn.find_all(class_="input", limit=1):
                source.wrap(body.new_tag("details")).insert(0, body.new_tag("summary", string="code"))
    for image in body.find_all("img", alt=["", _FIGURE]):
        if heading := image.find_previous(["h1", "h2", "h3", "h4", "h5", "h6"]):
            image["alt"] = f"{_FIGURE} in the section “{heading.get_text()}”"
    return body


def markdown_body(text: str) -> BeautifulSoup:
    """Markdown as a tree of HTML, without the page around it."""
    return BeautifulSoup(f'<div class="rendered_html">{_rendered(text)}</div>', "html.parser")


def relink(body: Tag, lead: Callable[[str], str]) -> None:
    """Let links and images that name a file by its relative path have the path that `lead` gives for it."""
    for tag in body.find_all(["a", "img"]):
        attribute = "href" if tag.name == "a" else "src"
        url = urlsplit(str(tag.get(attribute, "")))
        if not url.scheme and url.path and not url.path.startswith("/"):
            tag[attribute] = url._replace(path=lead(url.path)).geturl()


def description(png: Path) -> str:
    """What `save_figure` wrote into a PNG for screen readers."""
    with Image.open(png) as image:
        image.load()
        return str(image.info.get("Description", "")) or png.stem.replace("_", " ")


class _OfflineRenderer(IPythonRenderer):
    """Renders formulas as MathML, which browsers show by themselves; gives headings an id, as JupyterLab does."""

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        anchor = BeautifulSoup(text, "html.parser").get_text().strip().replace(" ", "-")
        return f'<h{level} id="{html.escape(anchor)}">{text}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        return self._mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<span class="formula">{self._mathml(body, "block")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def _mathml(self, body: str, display: str) -> str:
        try:
            return to_mathml(body, display=display)
        except Exception:  # a formula it cannot read is shown as it was written
            return f"<code>{self.escape_html(body)}</code>"


def _rendered(markdown: str) -> str:
    return MarkdownWithMath(renderer=_OfflineRenderer(escape=False, exclude_anchor_links=True)).render(markdown)
