"""benchmarks/scaling.py: the cost of a step is fitted from its rows, and drawn."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "scaling.py"


@pytest.fixture
def scaling(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("scaling", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "scaling", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOG", tmp_path / "scaling.jsonl")
    monkeypatch.setattr(module, "CHART", tmp_path / "scaling.svg")
    return module


def test_the_cost_of_a_step_is_found_again(scaling, capsys):
    """Rows that follow the model exactly; only the newest of a case counts."""
    for kind in ("Gaussians", "pixels"):
        for case in scaling.CURVES[kind]:
            width, height = case.pixels
            seen = case.gaussians * (0.9 - 0.1 * width / 1000)
            per_camera = 0.05e-6 * width * height + 0.2e-6 * seen
            cost = scaling.CAMERAS * per_camera + 0.3e-6 * case.gaussians + 5e-3
            row = {"step_cpu": cost, "in_view": seen, "peak": 1.0, "start_cpu": 1.0}
            for value in (9.9, cost):
                scaling.keep(kind, case, row | {"step_cpu": value})
    found = list(scaling.fit().values())
    assert found == pytest.approx([0.05, 0.2, 0.3, 5, 0], rel=0.02, abs=1e-3)
    scaling.draw()
    assert "per Gaussian, us" in capsys.readouterr().out
    assert scaling.CHART.read_text().count("<polyline") == 3  # two times of a step, one memory
    assert json.loads(scaling.LOG.read_text().splitlines()[0])["kind"] == "Gaussians"
    assert set(asdict(scaling.Case())) < set(scaling.rows_of("pixels")[0])
