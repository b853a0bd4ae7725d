"""`radapter-lite book`: the executed notebooks as a static site that works offline, nothing executed anew.

Every page carries its style, and all but pdoc's of the reference lie flat in one folder; links between notebooks,
Markdown files and figures lead to their pages or copies. Nothing is fetched, and the one script is the slider's.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nbformat
import numpy as np
import pdoc.doc
import pdoc.render
from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode

import radapter_lite
from radapter_lite.alpha_curve import AlphaCurve
from radapter_lite.assets import BOOK, DEMO_DELTA, filled
from radapter_lite.backbone import load_clip
from radapter_lite.data import load_images
from radapter_lite.delta import Delta
from radapter_lite.files import make_folder, write_text
from radapter_lite.progress import progress
from radapter_lite.publish import notebook
from radapter_lite.publish.html import markdown_body, notebook_body, page, relink, title
from radapter_lite.view.sliders import STOPS, AlphaSlider

TITLE = "R-Adapter Lite"
# Markdown beside the notebooks, where the checkout has it: the file, and its page.
DOCUMENTS = {
    "notebooks/glossary.md": "glossary.html",
    "README.md": "readme.html",
    "MODEL_CARD.md": "model_card.html",
    "ATTRIBUTION.md": "attribution.html",
    "pretrain/README.md": "pretrain.html",
}
# The α slider is the notebooks' own, its pictures made beforehand at every stop, so that no kernel is needed.
SHOWN = STOPS[::2]  # the stops that are kept, from 0 to 1
POOL = 40  # test images of each domain
# The reference: pdoc's pages of the modules, made from the docstrings; notebooks link to them.
FOLDER = "reference"
IMPORT = re.compile(r"^from radapter_lite import (.+)$", re.MULTILINE)

PACKAGE = Path(radapter_lite.__file__).parent
_FILES = (path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
_NAMES = [".".join(path.parts).removesuffix(".__init__") for path in _FILES]
# All but what is served or typed, which is no library.
LEFT_OUT = tuple(f"radapter_lite.{name}" for name in ("app", "cli", "commands", "publish.kernel"))
MODULES = [name for name in _NAMES if not name.startswith(LEFT_OUT)]

for _name in radapter_lite.__all__:  # pdoc sees what is there, and these are loaded when they are first used
    vars(radapter_lite)[_name] = getattr(radapter_lite, _name)


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
        return cls(path, nb, title(text) or path.stem, question, time[0] if time else "")


def build(out: Path) -> Path:
    """Write the site into the folder `out` and return its contents page.

    Raises FileNotFoundError without notebooks, and ValueError if `out` is a file, or a folder of something else.
    """
    root = notebook.checkout() or notebook.PACKAGE
    chapters = [Chapter.read(path) for path in notebook.available()]
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "slider.html").is_file())):
        raise ValueError(f"{out} holds something other than a book: name a new folder, or an empty one")
    out.mkdir(parents=True, exist_ok=True)
    documents = {name: to for name, to in DOCUMENTS.items() if (root / name).is_file()}
    site = [(TITLE, "index.html"), ("Slider", "slider.html"), ("Reference", "reference/index.html")]
    site += [("Glossary", "glossary.html")] if "glossary.html" in documents.values() else []
    for name, heading, body, turn in progress(_pages(root, out, chapters, documents), "book", unit="page"):
        whole = heading if heading == TITLE else f"{heading} · {TITLE}"
        write_text(out / name, page(whole, body, site=site, **turn))
    return out / "index.html"


def _pages(
    root: Path, out: Path, chapters: Sequence[Chapter], documents: dict[str, str]
) -> Iterator[tuple[str, str, str, dict[str, Chapter | None]]]:
    """Name, heading, body and neighbours of each page; the slider, by which `build` knows a book, comes first."""
    places = {f"notebooks/{chapter.path.name}": chapter.page for chapter in chapters} | documents

    def relinked(body: Tag, folder: str) -> str:
        """The HTML of a file in `folder`, its relative links leading to the site's pages, or to copies of files."""

        def lead(name: str) -> str:
            target = os.path.normpath(PurePosixPath(folder, name)).replace(os.sep, "/")
            if target in places or target.startswith("..") or not (root / target).is_file():
                return places.get(target, name)
            shutil.copyfile(root / target, make_folder((out / target).parent) / PurePosixPath(target).name)
            return target

        relink(body, lead)
        return str(body)

    yield "slider.html", "The α slider", slider_body(), {}
    for before, chapter, after in zip([None, *chapters], chapters, [*chapters[1:], None], strict=False):
        body = notebook_body(chapter.nb, root / "figures")
        link_reference(body)
        yield chapter.page, chapter.title, relinked(body, "notebooks"), {"before": before, "after": after}
    links = []
    for name, to in documents.items():
        text = (root / name).read_text(encoding="utf-8")
        body, heading = markdown_body(text), title(text) or name
        for tag in body.find_all(id=True):  # GitHub's names, where notebooks have JupyterLab's
            tag["id"] = str(tag["id"]).lower()
        links.append(("README" if name == "README.md" else heading, to))
        yield to, heading, relinked(body, str(PurePosixPath(name).parent)), {}
    write_reference(out)
    yield "index.html", TITLE, filled("book/index.html", title=TITLE, chapters=chapters, documents=links), {}


def demo_slider() -> AlphaSlider:
    """The slider of the demonstration delta, over some test images of every domain."""
    backbone, delta, test = load_clip(), Delta.load(DEMO_DELTA), load_images(id_domain="camera").test
    rng = np.random.default_rng(0)
    rows = [row for _, own in test.table.groupby("domain", sort=False) for row in rng.permutation(own.index)[:POOL]]
    images = test.take(rows)
    return AlphaSlider({"R-Adapter": AlphaCurve.measure(backbone, delta, images)}, images)


def slider_body() -> str:
    """The slider's page: its pictures, and the script that shows one after the other. Raises as `Delta.load` does."""
    slider, frames = demo_slider(), []
    for stop in SHOWN:
        slider.slider.value = stop
        frames.append(slider.picture.value)
    return filled("book/slider.html", pool=POOL, styles=slider.children[1].value, frames=frames)


def write_reference(book: Path) -> Path:
    """Write a page for each module, the command line's left out, and return the page that lists them."""
    pdoc.render.configure(docformat="google", show_source=False, search=False, template_directory=BOOK / "pdoc")
    modules = {name: pdoc.doc.Module.from_name(name) for name in MODULES}
    for name, module in modules.items():
        page = book / FOLDER / f"{name.replace('.', '/')}.html"
        make_folder(page.parent)
        text = pdoc.render.html_module(module, modules)
        write_text(page, text.replace(str(PACKAGE), PACKAGE.name))  # where a path is a default
    contents = book / FOLDER / "index.html"
    write_text(contents, pdoc.render.html_index(modules))
    return contents


def link_reference(body: BeautifulSoup) -> None:
    """Let the package's names lead to their entries, where a notebook imports them and where its text has them."""
    named = [code for code in body.select(".rendered_html code") if not code.find_parent(["a", "pre"])]
    for code in body.select(".input_area pre"):
        imported = {name for names in IMPORT.findall(code.get_text()) for name in re.findall(r"\w+", names)}
        named += [token for name in imported for token in code.find_all("span", string=name, limit=1)]
    for code in named:
        if (name := code.get_text()) in radapter_lite.__all__:
            code.wrap(body.new_tag("a", href=f"{FOLDER}/{radapter_lite.__name__}.html#{name}"))
