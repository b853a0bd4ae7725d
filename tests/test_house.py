"""The house: nothing imports from a floor above its own, the method stays small, and importing it stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import radapter_lite

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "radapter_lite"
# From the ground up. A module may import from its own floor and from those below it.
FLOORS = (
    ("version", "errors", "files", "processes", "progress", "seeding", "settings", "assets"),
    ("backbone", "data", "results", "statistics"),
    ("alpha", "delta_file", "delta", "losses", "training"),
    ("adapter", "tasks"),
    ("encoding", "memory"),
    ("tuned", "alpha_choice", "alpha_curve", "calibration"),
    ("evaluation",),
    ("methods",),
    ("bench",),
    ("view",),
    ("publish",),
    ("app",),
    ("commands",),
    ("cli",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
METHOD = [
    f"radapter_lite/{name}.py" for name in ("losses", "adapter", "delta", "training", "methods/r_adapter", "evaluation")
]
FILES = sorted(PACKAGE.rglob("*.py"))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def imports(path: Path) -> Iterator[str]:
    """What a file imports of the package, in functions too: "delta", "methods.registry"; "" for the package itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for block in [node for node in tree.body if isinstance(node, ast.If)]:  # `if TYPE_CHECKING` imports nothing
        tree.body.remove(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            inside = (node.module or "").partition(".")[2]
            if inside:
                yield inside
            else:
                yield from (
                    name.name if (PACKAGE / name.name).is_dir() or (PACKAGE / f"{name.name}.py").is_file() else ""
                    for name in node.names
                )
        elif isinstance(node, ast.Import):
            yield from (name.name.partition(".")[2] for name in node.names if name.name.split(".")[0] == PACKAGE.name)


def test_every_module_has_a_floor() -> None:
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert there == set(FLOOR)


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=lambda p: p.stem)
def test_no_import_runs_upward(path: Path) -> None:
    own = FLOOR[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
    for module in imports(path):
        if path.name == "book.py" and not module:
            continue  # its subject is the package itself
        assert module, f"{path.name} imports names from the package itself: name the module they live in"
        assert FLOOR[module.split(".")[0]] <= own, f"{path.name} imports {module} from a floor above"


def test_modules_of_one_floor_do_not_go_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {module for module in imports(path) if module and name != "__init__"} - {name}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"in a circle: {' -> '.join([*way, name])}"
        if name not in done:
            for other in sorted(graph.get(name, ())):
                # A package's own front imports its modules; that they are inside of it is no circle.
                if not other.startswith(f"{name}.") and not name.startswith(f"{other}."):
                    visit(other, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_the_method_is_small_and_so_is_the_rest() -> None:
    assert sum(lines(ROOT / name) for name in METHOD) < 1500
    assert sum(map(lines, FILES)) < 10_000
    assert [path.name for path in FILES if lines(path) > 400] == []


def test_the_readme_leads_to_the_method() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in METHOD if f"]({name})" not in text] == []


def test_the_interface_is_what_its_stub_tells() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    told = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(told) == sorted(radapter_lite.__all__)
    for name, module in told.items():
        assert getattr(radapter_lite, name) is getattr(import_module(f"radapter_lite.{module}"), name)
    assert radapter_lite.__version__ and not hasattr(radapter_lite, "nothing_of_this_name")


def test_importing_the_interface_brings_nothing_heavy_but_open_clip_and_pandas() -> None:
    for_notebooks = {"alpha_slider", "check", "encoder_map", "guess", "measured", "move", "predictions", "sized"}
    script = f"""
import sys
import open_clip, pandas
before = {{name.partition(".")[0] for name in sys.modules}}
import radapter_lite
for name in {sorted({*radapter_lite.__all__} - for_notebooks)}:
    getattr(radapter_lite, name)
print(*{{name.partition(".")[0] for name in sys.modules}} - before - {{"radapter_lite"}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "matplotlib",
        "seaborn",
        "sklearn",
        "scipy",
        "skimage",
        "peft",
        "accelerate",
        "IPython",
        "ipywidgets",
        "papermill",
        "voila",
    }
    assert not heavy & set(done.stdout.split())
