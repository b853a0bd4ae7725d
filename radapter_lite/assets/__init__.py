"""What the package ships, by its place, and its templates with values in them."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

ASSETS = Path(__file__).parent
PICTOSHIFT = ASSETS / "pictoshift.zip"
CORPUS_SAMPLE = ASSETS / "corpus_sample.zip"  # of PictoCLIP's pretraining, made by pretrain/corpus_sample.py
RESULTS = ASSETS / "results"  # the tables of the long runs, made by `radapter-lite bench`
DEMO_DELTA = ASSETS / "demo_delta"  # made by pretrain/demo_delta.py
GLYPHS = ASSETS / "glyphs.tsv"
BOOK = ASSETS / "book"
STYLES = ASSETS / "styles"  # of matplotlib
CLAIMS = ASSETS / "claims.csv"

ESCAPED = select_autoescape(disabled_extensions=("md.jinja2",), default=True)
TEMPLATES = Environment(loader=FileSystemLoader(ASSETS), autoescape=ESCAPED, trim_blocks=True, lstrip_blocks=True)


def filled(name: str, /, **values: Any) -> str:
    """A template, as "book/page.html", with its values in it, which are escaped but in Markdown."""
    return TEMPLATES.get_template(f"{name}.jinja2").render(values)
