"""`radapter-lite book`: the executed notebooks as a static site that works offline, nothing executed anew.

Every page is flat in one folder and carries its style; links between notebooks, Markdown files and figures lead to
their pages or copies. Nothing is fetched, and the one script is the slider's.
"""

import html
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import nbformat
from bs4 import Tag
from nbformat import NotebookNode

from radapter_lite.files import write_text
from radapter_lite.progress import progress
from radapter_lite.publish import notebook
from radapter_lite.publish.book_slider import slider_body
from radapter_lite.publish.html import description, markdown_body, notebook_body, page, relink, title

if TYPE_CHECKING:
    from radapter_lite.publish.reference import Reference

TITLE = "R-Adapter Lite"
LEAD = (
    "Robust fine-tuning of CLIP, built, checked and slid along α in notebooks. These are the notebooks as they were "
    "executed; to run them, <code>radapter-lite lab</code> opens them in JupyterLab."
)
# Markdown beside the notebooks, where the checkout has it: the file, and its page.
DOCUMENTS = {
    "notebooks/glossary.md": "glossary.html",
    "README.md": "readme.html",
    "MODEL_CARD.md": "model_card.html",
    "ATTRIBUTION.md": "attribution.html",
    "pretrain/README.md": "pretrain.html",
}
_WIDGET_NOTE = (
    '<p><em>An interactive widget stands here when the notebook runs in JupyterLab; <a href="slider.html">a slider '
    "that moves without a kernel</a> has a page of its own.</em></p>"
)


@dataclass(frozen=True)
class Chapter:
    """A notebook as the contents page shows it."""

    path: Path
    nb: NotebookNode
    title: str
    question: str
    time: str

    @property
    def page(self) -> str:
        return f"{self.path.stem}.html"

    @classmethod
    def read(cls, path: Path) -> "Chapter":
        """Its heading, the question in bold under it, and the sentence that begins with "It runs in"."""
        nb = nbformat.read(path, as_version=4)
        text = nb.cells[0].source if nb.cells else ""
        bold = [strong.get_text() for strong in markdown_body(text).find_all("strong")]
        question = next((said for said in bold if said.endswith("?")), "")
        time = re.search(r"It runs in [^.;,]+", text)
        return cls(path, nb, title(text) or path.stem, _one_line(question), _one_line(time[0] if time else ""))


def build(out: Path) -> Path:
    """Write the site into the folder `out` and return its contents page.

    Raises:
        FileNotFoundError: if there are no notebooks.
        ValueError: if `out` is a file, or a folder with something else in it, and if pdoc is not installed.
    """
    try:
        from radapter_lite.publish.reference import Reference
    except ModuleNotFoundError as error:
        raise ValueError(f"The book needs {error.name}, which is missing: pip install {error.name}") from None
    root = notebook.checkout() or notebook.PACKAGE
    chapters = [Chapter.read(path) for path in notebook.available()]
    if not chapters:
        raise FileNotFoundError("This installation holds no notebooks; install radapter-lite again.")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "slider.html").is_file())):
        raise ValueError(f"{out} holds something other than a book: name a new folder, or an empty one")
    out.mkdir(parents=True, exist_ok=True)
    site = _Site(root, out, chapters, Reference(chapters))
    for write in progress(site.pages(), "book", unit="page"):
        write()
    return out / "index.html"


class _Site:
    def __init__(self, root: Path, out: Path, chapters: Sequence[Chapter], reference: "Reference") -> None:
        self.root, self.out, self.chapters, self.reference = root, out, chapters, reference
        self.documents = {name: to for name, to in DOCUMENTS.items() if (root / name).is_file()}
        self.figures = sorted((root / "figures").glob("*.png"))
        self.places = {f"notebooks/{chapter.path.name}": chapter.page for chapter in chapters} | self.documents
        self.places |= {_pdoc_place(module): f"{module}.html" for module in reference.modules}

    def pages(self) -> list[Callable[[], None]]:
        """What is to be done, a call a page: first the slider, by which `build` knows a book, finished or not."""
        writes: list[Callable[[], None]] = [
            *(partial(self._chapter, number) for number in range(len(self.chapters))),
            *(partial(self._document, name) for name in self.documents),
            self._reference,
            *(partial(self._module, name) for name in self.reference.modules),
        ]
        writes += [self._figures] if self.figures else []
        return [self._slider, *writes, self._contents]

    def _chapter(self, number: int) -> None:
        chapter = self.chapters[number]
        body = notebook_body(chapter.nb, self.root / "figures", _WIDGET_NOTE)
        self.reference.link(body)
        links = []
        if number:
            links.append(_link(self.chapters[number - 1], "prev", "← "))
        if number + 1 < len(self.chapters):
            links.append(_link(self.chapters[number + 1], "next", "", " →"))
        turn = f'<nav class="turn" aria-label="Chapters">{"".join(links)}</nav>\n'
        self._write(chapter.page, chapter.title, self._relinked(body, "notebooks"), turn)

    def _document(self, name: str) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        body = markdown_body(text)
        for heading in body.find_all(id=True):  # GitHub's names, where notebooks have JupyterLab's
            heading["id"] = str(heading["id"]).lower()
        folder = str(PurePosixPath(name).parent)
        self._write(self.documents[name], self._heading(name), self._relinked(body, folder))

    def _reference(self) -> None:
        self._write("reference.html", "Reference", str(self.reference.contents()))

    def _module(self, name: str) -> None:
        folder = str(PurePosixPath(_pdoc_place(name)).parent)
        self._write(f"{name}.html", name, self._relinked(self.reference.body(name), folder))

    def _heading(self, name: str) -> str:
        """A document's first heading, or else its name."""
        text = (self.root / name).read_text(encoding="utf-8")
        return title(text) or name

    def _figures(self) -> None:
        parts = ["<h1>Figures</h1>"]
        for png in self.figures:
            said = html.escape(description(png))
            vector = png.with_suffix(".svg")
            source = self._copied(f"figures/{png.name}")
            target = self._copied(f"figures/{vector.name}") if vector.is_file() else source
            parts.append(
                f'<figure id="{png.stem}"><a href="{target}"><img src="{source}" alt="{said}" loading="lazy"></a>'
                f"<figcaption>{said}</figcaption></figure>"
            )
        self._write("figures.html", "Figures", "\n".join(parts))

    def _slider(self) -> None:
        self._write("slider.html", "The α slider", slider_body())

    def _contents(self) -> None:
        items = "".join(
            f'<li><a href="{chapter.page}"><strong>{html.escape(chapter.title)}</strong>'
            f"<span>{html.escape(chapter.question)}</span>"
            f'<span class="quiet">{html.escape(chapter.time)}</span></a></li>\n'
            for chapter in self.chapters
        )
        others = "".join(f'<li><a href="{to}">{name}</a></li>' for name, to in self._others())
        body = (
            f'<h1>{TITLE}</h1>\n<p>{LEAD}</p>\n<h2>Notebooks</h2>\n<ol class="notebooks">\n{items}</ol>\n'
            f"<h2>Beside them</h2>\n<ul>{others}</ul>"
        )
        self._write("index.html", TITLE, body)

    def _others(self) -> Iterable[tuple[str, str]]:
        yield "The α slider, without a kernel", "slider.html"
        yield "Reference, made from the docstrings", "reference.html"
        if self.figures:
            yield "Figures", "figures.html"
        for name, to in self.documents.items():
            yield html.escape("README" if name == "README.md" else self._heading(name)), to

    def _write(self, name: str, heading: str, body: str, after: str = "") -> None:
        links = [("index.html", TITLE), ("slider.html", "Slider"), ("reference.html", "Reference")]
        links += [("figures.html", "Figures")] if self.figures else []
        links += [("glossary.html", "Glossary")] if "glossary.html" in self.documents.values() else []
        bar = "".join(f'<a href="{to}">{text}</a>' for to, text in links)
        before = f'<nav class="site" aria-label="Site">{bar}</nav>\n'
        whole = heading if heading == TITLE else f"{heading} · {TITLE}"
        write_text(self.out / name, page(whole, body, before, after))

    def _relinked(self, body: Tag, folder: str) -> str:
        """The HTML of a file in `folder`, its relative links leading to the site's pages, or to copies of files."""

        def lead(name: str) -> str:
            target = os.path.normpath(PurePosixPath(folder, name)).replace(os.sep, "/")
            if target in self.places:
                return self.places[target]
            copied = (self.root / target).is_file() and not target.startswith("..")
            return self._copied(target) if copied else name

        relink(body, lead)
        return str(body)

    def _copied(self, name: str) -> str:
        """A file of the checkout, copied to the same place in the site."""
        copy = self.out / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / name, copy)
        return name


def _pdoc_place(module: str) -> str:
    """Where pdoc's links expect a module's page."""
    return module.replace(".", "/") + ".html"


def _link(chapter: Chapter, relation: str, before: str = "", after: str = "") -> str:
    return f'<a rel="{relation}" href="{chapter.page}">{before}{html.escape(chapter.title)}{after}</a>'


def _one_line(text: str) -> str:
    return " ".join(text.split())
