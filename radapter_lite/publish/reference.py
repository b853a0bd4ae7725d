"""The reference: a page for every module a reader meets, made by pdoc from the docstrings; notebooks link to it.

These modules are the homes of the package's public names, and those that notebooks import from.
"""

import ast
import html
import inspect
import pydoc
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import pdoc.doc
import pdoc.render
from bs4 import BeautifulSoup, Tag

import radapter_lite
from radapter_lite.assets import BOOK
from radapter_lite.publish.html import markdown_body, parsed
from radapter_lite.publish.notebook import PACKAGE, code_cells, syntax

if TYPE_CHECKING:
    from radapter_lite.publish.book import Chapter


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
                for _, _, entry in _imports(cell.source):
                    self.introduced.setdefault(entry, chapter)
        modules = sorted({entry.module for entry in [*self.public.values(), *self.introduced]})
        self.modules = {module: pdoc.doc.Module.from_name(module) for module in modules}
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
        for heading in body.find_all("h6"):  # Arguments, Raises and such, which many entries of a page have
            heading.name, heading.attrs = "p", {"class": "part"}
        for paragraph in body.select(".docstring p"):
            if paragraph.get_text().startswith("Source:"):
                paragraph["class"] = "quiet"
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
            source = code.get_text()
            starts = [0]
            for line in source.split("\n"):
                starts.append(starts[-1] + len(line) + 1)
            imported = {starts[line - 1] + column: entry for line, column, entry in _imports(source)}
            at = 0
            for text in list(code.strings):
                if at in imported:
                    text.wrap(_anchor(imported[at]))
                    known[str(text)] = imported[at]
                at += len(text)
        _link_text(body.select(".rendered_html code"), known)


def _link_text(codes: Iterable[Tag], known: Mapping[str, Entry]) -> None:
    """Let names that stand alone as code in a text lead to their entries."""
    for code in codes:
        entry = known.get(code.get_text())
        if entry and not code.find_parent(["a", "pre"]) and not code.a:
            code.wrap(_anchor(entry))


def _anchor(entry: Entry) -> Tag:
    return Tag(name="a", attrs={"href": entry.page})


def _imports(source: str) -> Iterator[tuple[int, int, Entry]]:
    """The names that code imports from the package: line, column, and what each is."""
    for node in syntax(source):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == radapter_lite.__name__:
            for alias in node.names:
                if entry := _entry(node.module or "", alias.name):
                    yield alias.lineno, alias.col_offset, entry


def _entry(module: str, name: str) -> Entry | None:
    """Where the name that is imported from a module is defined; None if no page of the package would show it."""
    package, found = f"{radapter_lite.__name__}.", pydoc.locate(f"{module}.{name}")
    if inspect.ismodule(found):
        return Entry(found.__name__, "") if found.__name__.startswith(package) else None
    if inspect.isclass(found) or inspect.isroutine(found):
        name, homes = found.__name__, [found.__module__]
    else:  # a constant does not know its module: it is the innermost that has it
        homes = [home for home in sys.modules if home.startswith(package)]
        homes = [home for home in homes if vars(sys.modules[home]).get(name, sys) is found]
    homes = [home for home in homes if home.startswith(package) and _documented(Entry(home, name))]
    return Entry(max(homes, key=lambda home: home.count(".")), name) if homes else None


def _documented(entry: Entry) -> pdoc.doc.Doc | None:
    """What pdoc knows of an entry."""
    module = pdoc.doc.Module.from_name(entry.module)
    return module.get(entry.name) if entry.name else module


def _item(entry: Entry) -> str:
    """A line of Markdown: the name and the first line of its docstring."""
    found = _documented(entry)
    summary = found.docstring.partition("\n")[0] if found else ""
    return f"- [`{entry.name or entry.module}`]({entry.page})" + (f": {summary}" if summary else "")
