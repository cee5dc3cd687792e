"""Imports point down only, and only commands talk to the user."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From top to bottom; a package imports from rows below its own, or itself.
LAYERS = (
    ("command",),
    ("gaussian_renderer",),
    ("scene",),
    ("spike", "recon_net", "arguments"),
    ("utils",),
    ("diff_gaussian_rasterization_cpu",),
)
COMMAND_FOLDERS = ("data", "benchmarks", "docs")
PACKAGES = {"scene", "spike", "utils", "arguments", "recon_net", "gaussian_renderer"}
TALKING = ("print", "exit", "quit", "sys.exit", "os._exit")
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}


def tracked() -> list[Path]:
    """The project's own python files; all of them where there is no git (an unpacked archive)."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        skip = {".venv", "build", "output"}
        listed = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py") if not skip & set(p.parts)]
    return [Path(f) for f in listed if not f.startswith(("tests/", "submodules/")) and (ROOT / f).exists()]


FILES = tracked()


def is_command(path: Path) -> bool:
    return len(path.parts) == 1 or path.name == "__main__.py" or path.parts[0] in COMMAND_FOLDERS


def owner(path: Path) -> str:
    return "command" if is_command(path) else path.parts[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of the top-level packages that are imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def upward(name: str, source: str) -> list[str]:
    """Own packages that a file of package ``name`` must not import."""
    level = LEVEL[name]
    return [i for i in imported(ast.parse(source)) if i in LEVEL and i != name and LEVEL[i] <= level]


def talk(source: str, may_parse: bool) -> list[str]:
    """What a library must leave to commands: printing, exiting, parsing a command line."""
    tree = ast.parse(source)
    found = [i for i in imported(tree) if i == "argparse" and not may_parse]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in TALKING:
            found.append(f"{ast.unparse(node.func)} in line {node.lineno}")
        if isinstance(node, ast.Name) and node.id == "SystemExit":
            found.append(f"SystemExit in line {node.lineno}")
    return found


def test_files_are_found():
    assert PACKAGES <= {f.parts[0] for f in FILES}
    assert {owner(f) for f in FILES} <= set(LEVEL), "a new package needs a layer"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    assert upward(owner(path), (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", [f for f in FILES if not is_command(f)], ids=str)
def test_only_commands_talk(path):
    # arguments/ is where the commands' shared parser lives.
    assert talk((ROOT / path).read_text(), may_parse=path.parts[0] == "arguments") == []


def test_the_checks_see_what_they_should():
    assert upward("spike", "def f():\n    from scene.dataset import read_scene") == ["scene"]
    assert upward("spike", "import recon_net, utils.io, numpy") == ["recon_net"]
    assert upward("scene", "from scene.cameras import Camera\nimport spike") == []
    assert talk("import argparse", may_parse=False) == ["argparse"]
    assert talk("import argparse", may_parse=True) == []
    assert talk("sys.exit(1)\nprint(2)", may_parse=True) == ["sys.exit in line 1", "print in line 2"]
    assert talk("raise SystemExit(2)", may_parse=True) == ["SystemExit in line 1"]
