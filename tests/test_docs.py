"""The documents: no dead links, every flag listed, and nothing that only one machine has."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from commands.flags import flags_page
from pictures.kinds import GAUSSIANS, LONG
from scene.manifest import DEBLURRING, ImageWriter
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


def test_the_moving_image_can_be_made_again(tmp_path, monkeypatch, capsys):
    """From what render.py leaves: the exposure beside its sub-frames, forth and back."""
    model = tmp_path / "model"
    (model / "point_cloud/iteration_7").mkdir(parents=True)
    (model / "point_cloud/iteration_7/point_cloud.ply").touch()
    with ImageWriter(model, "train", 7) as images:
        for m in (0, 1, 2, None):
            images.save(GAUSSIANS, DEBLURRING, "a", m, 0.5 if m is None else m / 2, np.full((16, 24), 0.2 * (m or 0)))
        images.save(LONG, DEBLURRING, "a", None, 0.5, np.full((16, 24), 0.9))
    words = ("animation.py", "-m", model, "--view", "a", "--out", tmp_path / "a.webp")
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "docs/animation.py"), run_name="__main__")
    found, moving = cv2.imreadanimation(str(tmp_path / "a.webp"))
    assert found and len(moving.frames) == 4 and moving.frames[0].shape[:2] == (32, 104)
    middles = [float(frame[10, 80, 0]) / 255 for frame in moving.frames]
    assert np.allclose(middles, [0, 0.2, 0.4, 0.2], atol=0.05) and moving.frames[0][10, 20, 0] > 200
