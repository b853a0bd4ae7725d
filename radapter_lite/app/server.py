"""Voilà as the page's server: on this machine alone, with this interpreter as kernel, and no code to be seen."""

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbformat import v4
from traitlets.config import Config
from voila.app import Voila

from radapter_lite.app.uploads import MAX_BYTES
from radapter_lite.publish.kernel import ThisInterpreter

TEMPLATE = Path(__file__).parent / "template"
HOST = "localhost"
TITLE = "R-Adapter Lite"


def serve(settings: dict[str, Any], port: int, browser: bool) -> None:
    """Serve `open_page(**settings)` until interrupted, a kernel a visitor. Raises ValueError if the port is taken."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ValueError(f"port {port} is not free ({why}): name another with --port") from error
    config = Config()
    config.Voila = Config(ip=HOST, port=port, port_retries=0, open_browser=browser)
    config.Voila |= {"log_level": "CRITICAL", "config_file_paths": []}
    # A site that makes its own name lead to this machine (DNS rebinding) is refused. Tornado complains of Voilà's ping.
    config.Voila.tornado_settings = {"allow_remote_access": False, "ws_ping_timeout": 30_000}
    config.VoilaConfiguration = Config(allow_template_override="NO", allow_theme_override="NO", strip_sources=True)
    config.VoilaConfiguration.file_allowlist = []  # no file is served but Voilà's own
    config.VoilaConfiguration |= {"kernel_spec_manager_class": ThisInterpreter, "resources": {"max_bytes": MAX_BYTES}}
    # A kernel whose page went without a word, as with a laptop's lid, ends after ten minutes.
    config.MappingKernelManager = Config(cull_interval=60, cull_idle_timeout=600)
    with tempfile.TemporaryDirectory(prefix="radapter-lite-") as folder:
        path = Path(folder) / f"{TITLE}.ipynb"
        nbformat.write(_notebook(settings), path)
        page = _Page(config=config)
        page.initialize([str(path)])
        print(f"The page is at http://{HOST}:{port}; Ctrl-C ends it.", flush=True)
        page.start()


class _Page(Voila):
    """Voilà with our template before its own, and no one's configuration files."""

    def setup_template_dirs(self) -> None:
        super().setup_template_dirs()
        self.template_paths.insert(0, str(TEMPLATE))


def _notebook(settings: dict[str, Any]) -> nbformat.NotebookNode:
    source = f"from radapter_lite.app.page import open_page\n\nopen_page(**{settings!r})"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=[v4.new_code_cell(source)], metadata={"kernelspec": kernel})
