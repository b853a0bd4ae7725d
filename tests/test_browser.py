"""The page and two notebooks in Debian's chromium, driven as a person would: keys, mouse, files.

Screenshots are kept in out/screenshots/.
"""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "out" / "screenshots"
CHROMIUM = shutil.which("chromium")
# Milliseconds for a model to load or a notebook to run; a busy machine may need more.
PATIENCE = 1000 * int(os.environ.get("BROWSER_TEST_SECONDS", "240"))
expect.set_options(timeout=PATIENCE)  # playwright's own five seconds are too few there

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to drive: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(command: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a server until the block ends: asked to end, and killed where that is not enough."""
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | environment, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE / 1000
        while not answers(port):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answers(port: int) -> bool:
    """Whether a server accepts connections; no page is asked for, which would start a kernel."""
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def circles(picture: Locator) -> list[tuple[str | None, str | None]]:
    """Where the points of the charts stand."""
    found = picture.locator("svg circle").all()
    return [(each.get_attribute("cx"), each.get_attribute("cy")) for each in found]


def press(slider: Locator, key: str, times: int) -> None:
    slider.focus()
    for _ in range(times):
        slider.press(key)


# --- the page ---


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a page that is served."""
    number, folder = free_port(), tmp_path_factory.mktemp("page")
    command = [sys.executable, "-m", "radapter_lite.cli", "app", "--no-browser", "--port", str(number)]
    with served(command, number, folder / "log", {"JUPYTER_PATH": str(folder)}):
        yield number


@pytest.fixture(scope="module")
def visit(chromium: Browser, port: int) -> Iterator[Page]:
    """A visit to the page; the tests below follow each other in it."""
    page = chromium.new_page(viewport={"width": 1180, "height": 860})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(PATIENCE)
    page.goto(f"http://localhost:{port}/", wait_until="commit")
    page.wait_for_selector(".app-flips")
    elsewhere = [url for url in asked if not re.match(rf"(https?|ws)://localhost:{port}/|data:|blob:", url)]
    assert not elsewhere  # the page works offline
    yield page
    page.close()


def png(colour: tuple[int, int, int] = (240, 240, 240)) -> bytes:
    """A drawing of an umbrella's shape: half a disc on a stick."""
    y, x = np.mgrid[:200, :200]
    pixels = np.full((200, 200, 3), colour, np.uint8)
    pixels[((x - 100) ** 2 + (y - 90) ** 2 < 70**2) & (y < 90) | ((abs(x - 100) < 5) & (y > 40) & (y < 170))] = 20
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def upload(page: Page, name: str, content: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Your own image").click()
    chooser.value.set_files(FilePayload(name=name, mimeType="image/png", buffer=content))


def test_the_page_shows_no_code(visit: Page, port: int) -> None:
    screenshot(visit, "app")
    assert visit.locator(".jp-InputArea, .jp-CodeMirrorEditor, .highlight").count() == 0
    assert "radapter_lite" not in visit.locator("body").inner_text()
    assert visit.title() == "R-Adapter Lite"
    for path in ("R-Adapter%20Lite.ipynb", "log"):  # nor does the server give the notebook away
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://localhost:{port}/voila/files/{path}")


def test_the_page_answers_to_an_upload(visit: Page) -> None:
    upload(visit, "mine <script>.png", png())
    expect(visit.locator(".app-caption")).to_have_text("mine <script>.png")
    assert visit.locator(".app-bars").inner_text().count("%") == 3
    expect(visit.locator(".app-flips")).to_contain_text("answer")
    screenshot(visit, "app_upload")


def test_keys_on_the_slider_move_points_and_bars(visit: Page) -> None:
    slider, picture = (visit.get_by_role("slider"), visit.locator(".app-bars").locator("xpath=ancestor::div[2]"))
    before, bars = circles(visit.locator("body")), visit.locator(".app-bars").inner_text()
    press(slider, "End", 1)
    expect(picture).to_contain_text("α = 1.00")
    assert circles(visit.locator("body")) != before
    assert visit.locator(".app-bars").inner_text() != bars
    press(slider, "ArrowLeft", 3)
    expect(picture).to_contain_text("α = 0.97")
    screenshot(visit, "app_alpha")


def test_a_refused_upload_says_why(visit: Page) -> None:
    alert = visit.get_by_role("alert")
    upload(visit, "notes.png", b"these are notes, and no image")
    expect(alert).to_have_text("notes.png is no PNG, JPEG, WebP, GIF or BMP image: give one of these.")
    expect(visit.locator(".app-caption")).to_have_text("mine <script>.png")
    screenshot(visit, "app_refused")
    upload(visit, "large.png", bytes(12_000_000))  # more than the server's connection would carry
    expect(alert).to_have_text("The file has 12.0 MB: give an image of at most 5 MB.")
    large = png() + bytes(4_900_000 - len(png()))  # what follows an image's end is no part of it
    upload(visit, "nearly too large.png", large)
    expect(visit.locator(".app-caption")).to_have_text("nearly too large.png")
    expect(alert).to_have_count(0)


def test_class_names_are_the_visitors_own(visit: Page) -> None:
    visit.get_by_role("textbox").fill("mushroom, umbrella, <b>jellyfish</b>")
    visit.get_by_role("button", name="Use these names").click()
    expect(visit.locator(".app-bars")).to_contain_text("<b>jellyfish</b>")
    screenshot(visit, "app_class_names")
    visit.get_by_role("textbox").fill("mushroom")
    visit.get_by_role("button", name="Use these names").click()
    expect(visit.get_by_role("alert")).to_have_text("Type two class names or more, with commas between them.")


def test_an_example_is_a_click_away(visit: Page) -> None:
    example = visit.locator(".app-example").nth(2)
    example.click()
    expect(visit.locator(".app-caption")).to_have_text(example.inner_text())
    expect(example).to_have_class(re.compile("app-chosen"))


# --- the notebooks ---


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that has copies of two notebooks, without outputs, in the profile "smoke"."""
    folder, number = tmp_path_factory.mktemp("lab"), free_port()
    for name in ("00_start_here", "06_alpha_slider"):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", ()):
                cell.source, changes = re.subn(r'profile = "\w+"', 'profile = "smoke"', cell.source)
                assert changes == 1
        notebook.metadata.pop("widgets", None)
        (folder / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are in the page too
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, values in settings.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA")}
    own |= {f"JUPYTERLAB_{kind}_DIR": str(folder / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
    options = {
        "ServerApp.ip": "localhost",
        "ServerApp.port": number,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": folder / "notebooks",
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with served(command, number, folder / "log", own):
        yield f"http://localhost:{number}/lab"


IDLE = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
STOPPED = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map((each) => each.textContent);
    return /\\d/.test(prompts[0]) && !prompts.some((prompt) => prompt.includes('*'));
}"""


def run_all(page: Page, lab: str, name: str) -> None:
    """Open a notebook, run all its cells, and wait for the last; an error in one fails the test."""
    page.set_default_timeout(PATIENCE)
    page.goto(f"{lab}/workspaces/{name}/tree/{name}.ipynb", wait_until="commit")  # no other one is open there
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(IDLE)  # a command before that would be lost
    run = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }"  # the menu's own command
    page.evaluate(run)
    page.wait_for_function(STOPPED)
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    if "[ ]:" in prompts:
        screenshot(page, f"{name}_failed")
        pytest.fail(page.locator("[data-mime-type='application/vnd.jupyter.stderr']").last.inner_text())
    page.wait_for_function(IDLE)


def test_notebook_00_runs_in_jupyterlab(chromium: Browser, lab: str) -> None:
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    run_all(page, lab, "00_start_here")
    figures = page.locator(".jp-OutputArea-output img")
    assert figures.count() >= 3
    figures.last.scroll_into_view_if_needed()
    screenshot(page, "lab_00")
    page.close()


def test_the_slider_of_notebook_06_moves(chromium: Browser, lab: str) -> None:
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    run_all(page, lab, "06_alpha_slider")
    red = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
    assert red.count() == 0  # what is left of a progress bar there is an empty red box
    output = page.locator(".jp-Cell").filter(has=page.get_by_role("slider")).first
    slider = output.get_by_role("slider")
    slider.scroll_into_view_if_needed()
    press(slider, "Home", 1)
    expect(output).to_contain_text("α = 0.00")
    start, numbers = circles(output), output.inner_text()
    screenshot(page, "lab_06_before")

    press(slider, "ArrowRight", 5)
    expect(output).to_contain_text("α = 0.05")
    keyed = circles(output)
    assert keyed != start

    handle = slider.bounding_box()
    assert handle
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 600, y, steps=6)
    page.mouse.up()
    expect(output).to_contain_text("α = 1.00")
    assert circles(output) != keyed
    assert output.inner_text() != numbers
    screenshot(page, "lab_06_after")
    page.close()
