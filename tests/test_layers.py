"""Imports point down only, entry points are short, and only commands talk to the user."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From top to bottom; a package imports from rows below its own, or itself.  Entry points are the scripts at the top and
# in data/, benchmarks/ and docs/, and the ``__main__`` of each package.
LAYERS = (
    ("entry point",),
    ("commands",),
    ("evaluation", "conversion"),
    ("training",),
    ("baselines",),
    ("gaussian_renderer",),
    ("simulation",),
    ("scene",),
    ("gaussians", "recon_net"),
    ("spike",),
    ("pictures", "arguments"),
    ("utils",),
    ("diff_gaussian_rasterization_cpu",),
)
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
SCRIPTS = ("data", "benchmarks", "docs")
TALKING = ("print", "say", "exit", "quit", "sys.exit", "os._exit")
# An entry point parses its own few flags and calls a library, which can be used without it.
LONGEST_ENTRY_POINT = 200
# Where the shared parser lives, and the one hook whose rows are printed on demand.
MAY_PARSE = ("arguments", "commands", "entry point")
MAY_TALK = ("arguments", "commands", "entry point")


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


def owner(path: Path) -> str:
    """The layer of a file."""
    is_entry_point = len(path.parts) == 1 or path.name == "__main__.py" or path.parts[0] in SCRIPTS
    return "entry point" if is_entry_point else path.parts[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of the top-level packages that are imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


ENTRY_POINTS = {path.stem for path in FILES if len(path.parts) == 1}


def upward(name: str, source: str) -> list[str]:
    """Own packages, and entry points, that a file of the layer ``name`` must not import."""
    level = LEVEL[name]
    found = list(imported(ast.parse(source)))
    return [i for i in found if (i in LEVEL and i != name and LEVEL[i] <= level) or i in ENTRY_POINTS]


def talk(source: str, may_parse: bool, may_talk: bool) -> list[str]:
    """What a library must leave to commands: printing, exiting, parsing a command line."""
    tree = ast.parse(source)
    found = [i for i in imported(tree) if i == "argparse" and not may_parse]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in TALKING and not may_talk:
            found.append(f"{ast.unparse(node.func)} in line {node.lineno}")
        if isinstance(node, ast.Name) and node.id == "SystemExit":
            found.append(f"SystemExit in line {node.lineno}")
    return found


def test_files_are_found():
    assert {owner(f) for f in FILES} == set(LEVEL) - {"diff_gaussian_rasterization_cpu"}, "a new package needs a layer"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    assert upward(owner(path), (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_only_commands_talk(path):
    layer = owner(path)
    assert talk((ROOT / path).read_text(), layer in MAY_PARSE, layer in MAY_TALK) == []


@pytest.mark.parametrize("path", [f for f in FILES if owner(f) == "entry point" and f.parts[0] not in SCRIPTS], ids=str)
def test_entry_points_are_short(path):
    """Nobody looks for the work in them."""
    assert len((ROOT / path).read_text().splitlines()) <= (20 if path.name == "__main__.py" else LONGEST_ENTRY_POINT)


def test_the_checks_see_what_they_should():
    assert upward("spike", "def f():\n    from scene.dataset import read_scene") == ["scene"]
    assert upward("spike", "import recon_net, utils.io, numpy") == ["recon_net"]
    assert upward("scene", "from scene.cameras import Camera\nimport spike") == []
    assert upward("commands", "import train") == upward("entry point", "import train") == ["train"]
    assert talk("import argparse", may_parse=False, may_talk=True) == ["argparse"]
    assert talk("import argparse", may_parse=True, may_talk=False) == []
    assert talk("sys.exit(1)\nprint(2)", True, False) == ["sys.exit in line 1", "print in line 2"]
    assert talk("raise SystemExit(2)", True, True) == ["SystemExit in line 1"]
