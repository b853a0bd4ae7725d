"""The reference: a page for every module a reader meets, made by pdoc from the docstrings; notebooks link to it.

These modules are the homes of the package's public names, and those that notebooks import from.
"""

import html
import inspect
import pydoc
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pdoc.doc
import pdoc.render
from bs4 import BeautifulSoup, Tag

import radapter_lite
from radapter_lite.assets import BOOK
from radapter_lite.publish.html import markdown_body, parsed
from radapter_lite.publish.notebook import PACKAGE, code_cells

if TYPE_CHECKING:
    from radapter_lite.publish.book import Chapter

IMPORT = re.compile(r"^from (radapter_lite[\w.]*) import (.+)$", re.MULTILINE)


class Entry(NamedTuple):
    """A name where it is defined; a module has no name in itself."""

    module: str
    name: str

    @property
    def page(self) -> str:
        return f"{self.module}.html" + (f"#{self.name}" if self.name else "")


class Reference:
    """The reference of a book whose chapters are given in reading order."""

    def __init__(self, chapters: Iterable["Chapter"]) -> None:
        entries = {name: _entry(radapter_lite.__name__, name) for name in radapter_lite.__all__}
        self.public = {name: entry for name, entry in entries.items() if entry}
        self.introduced: dict[Entry, Chapter] = {}
        for chapter in chapters:
            for cell in code_cells(chapter.nb):
                for _, entry in _imports(cell.source):
                    self.introduced.setdefault(entry, chapter)
        modules = sorted({entry.module for entry in [*self.public.values(), *self.introduced]})
        self.modules = {module: _module(module) for module in modules}
        pdoc.render.configure(docformat="google", show_source=False, search=False, template_directory=BOOK / "pdoc")

    def contents(self) -> BeautifulSoup:
        """The public names and the modules, each with the first line of its docstring."""
        names = [_item(self.public[name]) for name in sorted(self.public)]
        modules = [_item(Entry(module, "")) for module in self.modules]
        lines = ["# Reference", "## Names", f"From `{radapter_lite.__name__}` itself:", "", *names]
        return markdown_body("\n".join([*lines, "## Modules", *modules]))

    def body(self, module: str) -> Tag:
        """The page of a module as a tree of HTML, without the page around it."""
        text = pdoc.render.html_module(self.modules[module], self.modules)
        (body,) = parsed(text.replace(PACKAGE.as_posix(), PACKAGE.name)).select("main")
        body.name = "div"
        for inherited in body.select("[id$='.__init__'] > .docstring"):  # a class says itself what it takes
            inherited.decompose()
        _link_text(body.select(".docstring code"), self.public)
        for entry, chapter in self.introduced.items():
            if entry.module == module:
                where = f"[id='{entry.name}'] > .attr" if entry.name else ".module-info > h1"
                link = f'<a href="{chapter.page}">{html.escape(chapter.title)}</a>'
                for head in body.select(where):
                    head.insert_after(parsed(f'<p class="quiet">Introduced in {link}.</p>'))
        return body

    def link(self, body: BeautifulSoup) -> None:
        """Let the names that a notebook imports, and public names in its text, lead to their entries."""
        known = dict(self.public)
        for code in body.select(".input_area pre"):
            for name, entry in _imports(code.get_text()):
                known[name] = entry
                if token := code.find("span", string=name):
                    token.wrap(_anchor(entry))
        _link_text(body.select(".rendered_html code"), known)


def _link_text(codes: Iterable[Tag], known: Mapping[str, Entry]) -> None:
    """Let names that stand alone as code in a text lead to their entries."""
    for code in codes:
        entry = known.get(code.get_text())
        if entry and not code.find_parent(["a", "pre"]) and not code.a:
            code.wrap(_anchor(entry))


def _anchor(entry: Entry) -> Tag:
    return Tag(name="a", attrs={"href": entry.page})


def _imports(source: str) -> Iterator[tuple[str, Entry]]:
    """The documented names that code imports from the package, and where each is."""
    for module, names in IMPORT.findall(source):
        for name in re.findall(r"(\w+)(?: as \w+)?(?:,|$)", names):
            if entry := _entry(module, name):
                yield name, entry


def _entry(module: str, name: str) -> Entry | None:
    """Where the name that is imported from a module is documented, if it is."""
    if module == radapter_lite.__name__ and name in radapter_lite.__all__:
        module = f"{module}.{radapter_lite._MODULE_OF[name]}"
    found = pydoc.locate(f"{module}.{name}")
    if inspect.ismodule(found):
        return Entry(found.__name__, "")
    home = getattr(found, "__module__", module)  # a constant does not know its own
    return Entry(home, name) if _module(home).get(name) else None


_module = cache(pdoc.doc.Module.from_name)


def _item(entry: Entry) -> str:
    """A line of Markdown: the name and the first line of its docstring."""
    module = _module(entry.module)
    found = module.get(entry.name) if entry.name else module
    summary = found.docstring.partition("\n")[0] if found else ""
    return f"- [`{entry.name or entry.module}`]({entry.page})" + (f": {summary}" if summary else "")
