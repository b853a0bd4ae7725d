"""Executed notebooks as HTML files that need no network: no scripts, formulas as MathML, images inline."""

import re
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert as to_mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from radapter_lite.notebook import METRIC_MIME, WIDGET_MIME, write_atomically

# nbconvert's page without the scripts it would fetch: require.js, MathJax, mermaid and the widgets' renderer.
_TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""
_WIDGET_NOTE = "<p><em>An interactive widget stands here when the notebook runs in JupyterLab.</em></p>"


def to_html(path: str | Path, out: str | Path) -> Path:
    """Write the notebook `path` as one self-contained HTML file `out`, and return its path.

    Widgets live in running notebooks only: a sentence says so where one stood. Recorded metrics are left out.
    """
    nb = nbformat.read(path, as_version=4)
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                _static(output) for output in cell.outputs if METRIC_MIME not in output.get("data", ())
            ]
    html, _ = _OfflineExporter().from_notebook_node(nb, {"metadata": {"name": Path(path).stem}})
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, html)
    return out


def _static(output: NotebookNode) -> NotebookNode:
    if WIDGET_MIME in output.get("data", ()):
        output.data = NotebookNode({"text/html": _WIDGET_NOTE})
    return output


class _MathMLRenderer(IPythonRenderer):
    """Renders formulas as MathML, which browsers show by themselves; nbconvert leaves them to MathJax."""

    def inline_math(self, body: str) -> str:
        return self._mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return self._mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def _mathml(self, body: str, display: str) -> str:
        try:
            return to_mathml(body, display=display)
        except Exception:  # a formula it cannot read is shown as it was written
            return f"<code>{self.escape_html(body)}</code>"


class _OfflineExporter(HTMLExporter):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raw_template = _TEMPLATE

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _MathMLRenderer(escape=False, attachments=attachments, exclude_anchor_links=True)
        html = MarkdownWithMath(renderer=renderer).render(source)
        return re.sub(
            r'href="([\w-]+)\.ipynb"', r'href="\1.html"', html
        )  # the neighbour's page, not its notebook
