"""The documents: no dead links, every flag listed, and nothing that only one machine has."""

import re
import subprocess
from pathlib import Path

import pytest

from commands.flags import flags_page
from training.trained_model import TrainedModel

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        listed = [str(p.relative_to(ROOT)) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]
    return [Path(name) for name in listed if (ROOT / name).exists()]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_lead_somewhere(page):
    for target in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page} links to {target}"


def test_every_page_is_in_the_table_of_contents():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {f"{p.name}" for p in (ROOT / "docs").glob("*.md")} == set(re.findall(r": ([\w-]+\.md)", nav))


def test_the_page_of_flags_is_current():
    assert (ROOT / "docs/flags.md").read_text(encoding="utf-8") == flags_page(), "python -m arguments > docs/flags.md"


def test_the_example_in_the_readme_runs(scene_folder, tmp_path, monkeypatch):
    """As it stands, but on a smaller scene and for fewer steps."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text[text.index("From Python") :].split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 12
    changes = {
        '"data/demo"': f'r"{scene_folder}"',
        '"output/python"': f'r"{tmp_path}"',
        "iterations=600": "iterations=3, init_num_pts=300",
    }
    for long, short in changes.items():
        assert long in code
        code = code.replace(long, short)
    exec(compile(code, "README.md", "exec"), {})
    model = TrainedModel.load(tmp_path)
    assert model.iteration == 3 and len(model.exposures(model.scene.train)) == 5


@pytest.mark.parametrize("part", ["Streams", "Targets", "Recon-Net"])
def test_the_examples_on_arrays_run(part, tmp_path, monkeypatch, capsys):
    """As they stand, but Recon-Net for fewer steps on fewer pixels."""
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    code = text[text.index(f"## {part}") :].split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    if part == "Recon-Net":
        changes = {"iterations=500": "iterations=2", "0.9, 96).expand(200, 64, 96)": "0.9, 24).expand(200, 16, 24)"}
        for long, short in changes.items():
            assert long in code
            code = code.replace(long, short)
    exec(compile(code, part, "exec"), {})
    printed = capsys.readouterr().out
    if part == "Streams":
        assert printed.startswith("200 (10, 64, 96) ") and float(printed.split()[-1]) == pytest.approx(0.3, abs=0.01)
        assert (tmp_path / "a.dat").stat().st_size == 200 * 64 * 96 // 8
    elif part == "Targets":
        errors = {line.split(" mean error ")[0]: float(line.split()[-1]) for line in printed.splitlines()}
        assert errors["timing(9)"] < 0.02 < errors["TFP(9)"] and errors["TFP(41)"] < errors["TFP(9)"]
    else:
        assert "torch.Size([16, 24])" in printed and 0.4 < float(printed.split()[-1]) < 0.6
