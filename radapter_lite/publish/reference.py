"""The reference: pdoc's pages of the library's modules, made from the docstrings; notebooks link to them."""

import re
from pathlib import Path

import pdoc.doc
import pdoc.render
from bs4 import BeautifulSoup

import radapter_lite
from radapter_lite.assets import BOOK
from radapter_lite.files import make_folder, write_text

FOLDER = "reference"  # of the book
IMPORT = re.compile(r"^from radapter_lite import (.+)$", re.MULTILINE)

PACKAGE = Path(radapter_lite.__file__).parent
_FILES = (path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
_NAMES = [".".join(path.parts).removesuffix(".__init__") for path in _FILES]
# All but what is served or typed, which is no library.
LEFT_OUT = tuple(f"radapter_lite.{name}" for name in ("app", "cli", "commands", "publish.kernel"))
MODULES = [name for name in _NAMES if not name.startswith(LEFT_OUT)]

for _name in radapter_lite.__all__:  # pdoc sees what is there, and these are loaded when they are first used
    vars(radapter_lite)[_name] = getattr(radapter_lite, _name)


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
