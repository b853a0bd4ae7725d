"""The book: every link leads somewhere, nothing is fetched, and the slider moves in a browser without a kernel."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

import radapter_lite
from radapter_lite.cli import main
from radapter_lite.publish import book, notebook
from radapter_lite.publish.book import build, link_reference
from radapter_lite.publish.html import markdown_body, notebook_body, relink
from radapter_lite.publish.notebook import WIDGET_MIME
from radapter_lite.view import plots

ROOT = Path(__file__).parent.parent
GLOSSARY = (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^- \*\*(.+?)\*\*: (.+?)(?=\n- |\n\n|\Z)", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of this checkout."""
    out = tmp_path_factory.mktemp("book") / "site"
    return build(out).parent


@cache
def markup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


class Page(HTMLParser):
    """What a page refers to, which places in it have names, and the alt texts of its images."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.alts: list[str | None] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        self.ids.update(about[key] or "" for key in ("id", "name") if key in about)
        if tag == "a" and about.get("href"):
            self.links.append(about["href"] or "")
        elif tag in ("img", "script", "link", "iframe", "source"):
            self.loaded += [about[key] or "" for key in ("src", "href") if key in about]
        if tag == "img":
            self.alts.append(about.get("alt"))


def test_every_link_of_the_book_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"(https?|mailto):", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            led = (path.parent / target).resolve() if target else path
            named = pages.get(led)
            if not led.is_file() or (anchor and named and anchor not in named.ids):
                broken.append((path.name, link))
    assert not broken


def test_every_page_is_reached_from_the_contents(site: Path) -> None:
    reached, open_ = set(), [site / "index.html"]
    while open_:
        path = open_.pop()
        if path not in reached and path.suffix == ".html" and path.is_file():
            reached.add(path)
            links = (link.partition("#")[0] for link in Page(path).links if "//" not in link)
            open_ += [(path.parent / link).resolve() for link in links if link]
    assert set(site.rglob("*.html")) <= reached
    pages = {path.name for path in site.glob("*.html")}
    assert {f"{path.stem}.html" for path in notebook.available()} <= pages
    assert {"slider.html", "glossary.html", "readme.html"} <= pages


def test_nothing_is_loaded_from_elsewhere_and_every_image_is_described(site: Path) -> None:
    for path in site.rglob("*.html"):
        page, text = Page(path), path.read_text(encoding="utf-8")
        assert not [link for link in page.loaded if not link.startswith("data:") and not (site / link).is_file()]
        assert not re.search(r"""@import|url\((?!["']?data:)""", text)
        assert all(page.alts), path.name
        assert ("<script" in text) == (path.name == "slider.html")


def test_the_contents_page_has_questions_and_times(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    for path in notebook.available():
        chapter = book.Chapter.read(path)
        assert chapter.question.endswith("?") and chapter.time.startswith("It runs in"), path.name
    assert text.count("<li><a") >= len(notebook.available()) and "What does the whole thing look like" in text


def test_chapters_turn_forward_and_back(site: Path) -> None:
    names = [f"{path.stem}.html" for path in notebook.available()]
    for before, name, after in zip([None, *names], names, [*names[1:], None], strict=False):
        text = (site / name).read_text(encoding="utf-8")
        for relation, other in (("prev", before), ("next", after)):
            found = re.search(rf'<a rel="{relation}" href="([^"]+)"', text)
            assert (found and found[1]) == other


def test_a_book_replaces_a_book_and_nothing_else(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        assert main(["book", "--out", str(tmp_path / name)]) == 1
        assert "holds something other than a book" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package: its notebooks and glossary lie in it, and there are no figures and no README."""
    package = tmp_path / "radapter_lite"
    (package / "notebooks").mkdir(parents=True)
    shutil.copyfile(ROOT / "notebooks" / "glossary.md", package / "notebooks" / "glossary.md")
    first = v4.new_markdown_cell("# 00 · First\n\n**Why?**\n\nIt runs in a second.")
    nbformat.write(v4.new_notebook(cells=[first]), package / "notebooks" / "00_first.ipynb")
    monkeypatch.setattr(notebook, "PACKAGE", package)
    monkeypatch.setattr(book, "slider_body", lambda: "<h1>slider</h1>")


def test_an_installed_package_makes_a_book_of_what_it_has(
    package: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["book", "--out", str(tmp_path / "site")]) == 0
    assert str(tmp_path / "site" / "index.html") in capsys.readouterr().out
    assert [path.name for path in sorted((tmp_path / "site").iterdir())] == [
        "00_first.html",
        "glossary.html",
        "index.html",
        "reference",
        "slider.html",
    ]


@pytest.mark.parametrize("page", ["slider.html", "00_first.html", "glossary.html", "index.html"])
def test_a_book_that_was_interrupted_is_made_again(
    page: str, package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, text: str) -> None:
        if path.name == page:
            raise KeyboardInterrupt
        path.write_text(text, encoding="utf-8")

    command = ["book", "--out", str(tmp_path / "site")]
    with monkeypatch.context() as patch:
        patch.setattr(book, "write_text", stop)
        assert main(command) == 130
    assert not (tmp_path / "site" / "index.html").exists()
    assert main(command) == 0 and (tmp_path / "site" / "index.html").is_file()


def test_figures_of_a_notebook_are_described_as_in_their_files(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    plots.save_figure(figure, "measured", tmp_path, "Measured: 12 of 13.")
    plt.close(figure)
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA"}}
    cells = [
        v4.new_markdown_cell("## A section"),
        v4.new_code_cell("save_figure(figure, 'never saved', folder, 'As written.')", outputs=[picture]),
        v4.new_code_cell("plots.save_figure(\n    figure,\n    'measured', folder, f'{n}')", outputs=[picture]),
        v4.new_code_cell("plt.show()", outputs=[picture]),
        v4.new_code_cell(
            "slider", outputs=[{"output_type": "display_data", "metadata": {}, "data": {WIDGET_MIME: {}}}]
        ),
    ]
    nb = nbformat.from_dict(v4.new_notebook(cells=cells))
    text = str(notebook_body(nb, tmp_path))
    assert re.findall(r'alt="([^"]+)"', text) == [
        "Figure in the section “A section”",
        "Measured: 12 of 13.",
        "Figure in the section “A section”",
    ]
    assert "interactive widget" in text and WIDGET_MIME in nb.cells[4].outputs[0].data


def test_headings_have_names_that_links_can_use() -> None:
    assert '<h2 id="Two-words">Two words</h2>' in str(markdown_body("## Two words"))
    assert '<h2 id="Weight-W"' in str(markdown_body("## Weight `W`"))


def test_relinking_changes_paths_and_nothing_else() -> None:
    body = markdown_body(
        "[a](b.md#c) [d](https://e.org/b.md) [f](#g) <a href='b.md'>h</a> ![i](data:image/png;base64,AAAA)\n"
        "\n$\\tilde W < 1$\n\n```\n  if a < b:\n\n    c = 'b.md'\n```\n"
    )
    before = str(body)
    relink(body, lambda name: {"b.md": "../b.html"}[name])
    assert 'href="../b.html#c"' in str(body)
    assert str(body) == before.replace('href="b.md', 'href="../b.html')
    assert "<math" in before and "  if a &lt; b:\n\n    c = 'b.md'" in body.pre.get_text().replace("<", "&lt;")


# --- the reference ---


def test_every_public_name_has_its_entry_on_the_first_page(site: Path) -> None:
    front = markup(site / "reference" / "radapter_lite.html")
    for name in radapter_lite.__all__:
        assert front.select_one(f"nav a[href='#{name}']") and front.select_one(f"#{name} > .attr"), name
        said = callable(getattr(radapter_lite, name))  # a constant may have no docstring
        assert bool(front.select_one(f"#{name} > .docstring")) >= said, name


def test_a_notebook_links_what_it_imports(site: Path) -> None:
    seen = set()
    for path in notebook.available():
        page = markup(site / f"{path.stem}.html")
        code = "\n".join(cell.source for cell in notebook.code_cells(nbformat.read(path, as_version=4)))
        for names in re.findall(r"^from radapter_lite import (.+)$", code, re.MULTILINE):
            for name in set(names.split(", ")) & set(radapter_lite.__all__):
                (link,) = [a for a in page.select(".input_area a") if a.get_text() == name]
                assert link["href"] == f"reference/radapter_lite.html#{name}"
                seen.add(name)
    assert len(seen) > 5


def test_a_page_of_the_reference_says_what_docstrings_say_and_nothing_of_this_machine(site: Path) -> None:
    shapes = sources = 0
    for path in (site / "reference").rglob("*.html"):
        assert str(ROOT) not in path.read_text(encoding="utf-8")
        page = markup(path)
        assert not [link for link in page("a") if link.get_text().startswith("[")]
        assert "ScriptModule" not in page.get_text()  # what torch says of its own constructor
        shapes += len(re.findall(r"\[[A-Z](, [A-Z])+\]", page.get_text()))
        sources += len([p for p in page("p") if p.get_text().startswith("Source:")])
    assert shapes > 5 and sources > 5


def test_names_in_a_notebook_lead_to_the_reference() -> None:
    name = next(name for name in radapter_lite.__all__ if name.islower())
    cells = [
        v4.new_markdown_cell(f"# 00 · `x`\n\n`{name}` and `{name} x`, [`{name}`](y.html)\n\n    {name}"),
        v4.new_code_cell(f"x = 'α'  # {name}\n%magic"),
        v4.new_code_cell(f"# α\nfrom radapter_lite import {name} as y, bench, nothing\nfrom os import path\n{name}"),
    ]
    body = notebook_body(v4.new_notebook(cells=cells), Path("figures"))
    before = body.get_text()
    link_reference(body)
    entry = f"reference/radapter_lite.html#{name}"
    links = [(link["href"], link.get_text()) for link in body("a")]
    assert links == [(entry, name), ("y.html", name), (entry, name)]
    assert body.get_text() == before


def test_a_missing_pdoc_is_told_in_a_sentence(
    package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "radapter_lite.publish.book")
    monkeypatch.setitem(sys.modules, "pdoc", None)
    assert main(["book", "--out", str(tmp_path / "site")]) == 1
    assert "book needs pdoc, which is not installed: pip install" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


# --- the glossary ---


def test_every_term_stands_once_in_one_or_two_sentences_with_its_notebook() -> None:
    entries = ENTRY.findall(GLOSSARY)
    terms = [term.lower() for term, _ in entries]
    assert len(terms) == len(set(terms)) == GLOSSARY.count("\n- ") and len(terms) >= 40
    for term, text in entries:
        said, link = re.fullmatch(r"(.+?)\s+\[\w\d\]\((\w+\.ipynb)\)", text.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
        assert (ROOT / "notebooks" / link).is_file(), term
        assert 1 <= len(re.findall(r"\.(?=\s|$)", said)) <= 2, term


# --- the slider ---


@pytest.fixture(scope="module")
def frames(site: Path) -> list[str]:
    text = (site / "slider.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="frames">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]


def test_the_sliders_pictures_are_those_of_the_delta(frames: list[str]) -> None:
    assert len(frames) == len(book.SHOWN) and book.SHOWN[0] == 0 and book.SHOWN[-1] == 1
    slider = book.demo_slider()
    for step in (0, 17, len(frames) - 1):
        slider.slider.value = book.SHOWN[step]
        assert frames[step] == slider.picture.value
    assert len(set(frames)) == len(frames)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
def test_the_slider_moves_in_a_browser_that_has_no_network(site: Path, browser, frames: list[str]) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 900}, offline=True)
    page, asked, failed = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto((site / "slider.html").as_uri())
    slider, value, picture = page.locator("#alpha"), page.locator("#value"), page.locator("#picture")
    assert value.text_content() == "α = 0.00"
    ring = picture.locator("circle").first
    start = (ring.get_attribute("cx"), picture.inner_text())

    box = slider.bounding_box()  # drag its handle with the mouse, from the left end to the middle
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    step = int(slider.input_value())
    assert 22 <= step <= 28 and value.text_content() == f"α = {step / 50:.2f}"
    assert f'cx="{ring.get_attribute("cx")}"' in frames[step]
    assert (ring.get_attribute("cx"), picture.inner_text()) != start

    slider.press("ArrowRight")
    assert value.text_content() == f"α = {(step + 1) / 50:.2f}"
    slider.press("End")
    assert value.text_content() == "α = 1.00"
    page.locator("#play").click()  # at the end it begins anew
    page.wait_for_function("document.getElementById('value').textContent === 'α = 1.00' && play.textContent === '▶'")
    assert not failed
    assert asked and all(url.startswith(("file://", "data:")) for url in asked)
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_follow_the_colour_scheme(site: Path, browser, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    for path in [*sorted(site.glob("*.html")), site / "reference" / "radapter_lite" / "losses.html"]:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path.name
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light"), path.name
    assert all(url.startswith(("file://", "data:")) for url in asked)
    context.close()
