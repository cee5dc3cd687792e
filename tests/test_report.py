"""The report is one file that needs nothing else, shows what was measured, and says what is missing."""

import base64
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from made_up_paths import elsewhere, path
from rendered_model import M, Model, put_subframes
from scipy.spatial.transform import Rotation

from evaluation.charts import chart, log_charts
from evaluation.page import Embedded
from evaluation.report import Run, _upright, compose_report, write_report
from pictures.kinds import TRUTH
from utils.run_log import read_curves
from utils.trajectory_metrics import centers

VOID = {"meta", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and gathers attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.words, self.stored = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open[-1:] == ["script"] and data.lstrip().startswith("{"):
            self.stored = data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A run with everything: two of four views reversed, in a world of another scale."""
    truth = path(4, M)
    estimate = elsewhere(truth)
    estimate[[1, 3]] = estimate[[1, 3], ::-1]
    model = Model(tmp_path_factory.mktemp("run"), ("000", "001", "002", "003"), estimate, truth)
    put_subframes(model, back=("001", "003"))
    log = [{"iteration": i, "loss": 1 / i, "rec": 0.5 / i, "psnr": 20 + i, "gaussians": 900 * i, "seconds": 2.0 * i}
           for i in range(1, 6)]  # fmt: skip
    (model.root / "log.jsonl").write_text("\n".join(map(json.dumps, log)) + '\n{"iteration": 6, "lo')
    made = {"command": "train.py -s <a & b>", "versions": {"torch": "2.9"}, "seconds": 90, "peak_memory_bytes": 2**31}
    (model.root / "run.json").write_text(json.dumps(made))
    with pytest.MonkeyPatch.context() as patch:
        model.run(patch)
    return Page((model.root / "report.html").read_text())


def test_nothing_is_fetched(page):
    for _, attributes in page.found:
        for key in ("src", "href", "srcset", "action", "data"):
            if key in attributes:
                assert attributes[key].startswith(("data:", "#"))
    joined = "".join(page.words)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", joined)
    assert not page.all("link")


def test_every_view_has_its_pictures_and_a_slider(page):
    images = page.all("img")
    assert len(images) == 4 * 3  # renders, recon and truth; there is no long exposure here
    assert len([a for a in page.all("input") if a["type"] == "range"]) == 4
    renders = [a for a in images if a["data-kind"] == "gaussians"]
    assert [a["data-note"] for a in renders] == ["Gaussians 20.00 dB"] * 4
    for attributes, value in ((renders[0], 0.6), (next(a for a in images if a["data-kind"] == "truth"), 0.5)):
        kind, data = attributes["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded.shape[:2] == (16, 24)
        assert decoded.mean() / 255 == pytest.approx(value, abs=0.01)
    options = [a["value"] for a in page.all("option")]
    assert options == ["recon_net", "gaussians", "truth"] * 2
    assert [a["value"] for a in page.all("option") if "selected" in a] == ["gaussians", "truth"]


def test_numbers_of_the_table_and_of_the_run(page):
    text = page.text
    for expected in ("deblurring", "Recon-Net", "20.00", "PSNR, all sub-frames", "001, 003", "1.5 minutes", "2.00 GiB",
                     "train.py -s <a & b>", "torch 2.9", "no weights here"):  # fmt: skip
        assert expected in text
    assert "compared with the truth in reverse; as recovered" in text


def test_curves_have_every_entry_of_the_log(page):
    titles = [a["aria-label"] for a in page.all("svg")]
    assert len(titles) == 4 and "Size of the scene" in titles
    assert len(page.all("polyline")) == 1 + 2 + 1 + 1
    assert "4,500" in page.text and "rec" in page.words
    assert "1 lines of log.jsonl were not readable" in page.text


def test_trajectories_are_drawn_in_one_world_and_direction_of_time(page):
    stored = json.loads(page.stored)
    assert stored["names"] == ["000", "001", "002", "003"]
    recovered, true = (np.array(p["centers"]) for p in stored["paths"])
    assert [p["label"] for p in stored["paths"]] == ["recovered", "true"]
    assert np.allclose(recovered, true, atol=1e-4)
    assert np.linalg.norm(true[:, 0] - true[:, -1], axis=-1).min() > 0.01
    distances = np.linalg.norm(true - true[:1, :1], axis=-1)
    world = centers(path(4, M))
    assert np.allclose(distances, np.linalg.norm(world - world[:1, :1], axis=-1), atol=1e-4)


def test_what_is_missing_is_said(tmp_path):
    run = Run(tmp_path, 3, {"trajectory_missing": "there is no <truth>"}, {})
    page = Page(write_report(run).read_text())
    for expected in ("no sharp images", "no rendered images", "no log.jsonl", "no run.json", "there is no <truth>"):
        assert expected in page.text
    assert page.all("canvas") == []
    (tmp_path / "log.jsonl").write_text('{"iteration": 1}\n')
    (tmp_path / "run.json").write_text("[1]")
    text = Page(compose_report(run)).text
    assert "1 records, too few" in text and "no run.json" in text


def test_recovered_paths_alone_are_drawn_without_truth(tmp_path):
    run = Run(tmp_path, 3, {"trajectory_missing": "x"}, {}, names=["a", "</script>"], poses=path(2, M))
    page = Page(compose_report(run))
    stored = json.loads(page.stored)
    assert stored["names"][1] == "</script>" and len(stored["paths"]) == 1
    assert len(page.all("canvas")) == 1


def test_one_instant_a_view(tmp_path):
    missing = {"ATE": 0.1, "RPE_translation": None, "RPE_rotation_deg": None, "motion_error": None}
    results = {"trajectory": missing | {"reversed_views": []}}
    run = Run(tmp_path, 3, results, {}, names=["a", "b"], poses=path(2, 1), truth=path(2, 1))
    assert Page(compose_report(run)).text.count("missing") >= 3


def test_images_keep_their_colors(tmp_path):
    color = torch.tensor([0.9, 0.5, 0.1])[:, None, None].expand(3, 16, 16)
    pictures = {"deblurring": {"a_b": {TRUTH: Embedded.of(color)}}}
    page = Page(compose_report(Run(tmp_path, 3, {}, {}, pictures)))
    [image] = page.all("img")
    data = np.frombuffer(base64.b64decode(image["src"].split(",")[1]), np.uint8)
    blue_green_red = cv2.imdecode(data, cv2.IMREAD_COLOR).reshape(-1, 3).mean(0) / 255
    assert blue_green_red == pytest.approx([0.1, 0.5, 0.9], abs=0.02)


def test_names_are_escaped(tmp_path):
    name = "<i>\"a' & b</i>"
    pictures = {"deblurring": {name: {TRUTH: Embedded.of(torch.zeros(1, 8, 8))}}}
    page = Page(compose_report(Run(tmp_path / "<u>", 3, {}, {}, pictures)))
    assert name in page.text and f"border in {name}" in [a.get("aria-label") for a in page.all("input")]
    assert page.all("i") == [] and page.all("u") == [] and "<u>, iteration 3" in page.text


def test_a_resumed_runs_log_counts_the_last_record(tmp_path):
    lines = ['{"iteration": 50, "loss": 3}', '{"iteration": 100, "loss": 2}', '{"iteration": 50, "loss": 1}',
             "", "[]", '{"loss": 1}', '{"iteration": 150, "loss": NaN, "note": "x"}']  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    records, unreadable = read_curves(tmp_path)
    assert records == [{"iteration": 50, "loss": 1}, {"iteration": 100, "loss": 2}, {"iteration": 150}]
    assert unreadable == 3
    assert read_curves(tmp_path / "none") == ([], 0)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "points",
    [
        [(1, 5.0), (2, 5.0)],
        [(1, 1e-7), (2, 3e4)],
        [(10, 0.2), (20, 0.21), (30, 0.0)],
        [(5, 1.0)],
        [(1, 1e9), (30000, 2e9)],
    ],
)
def test_charts_stay_inside_their_frame(points, log):
    page = Page(chart("a", {"x": points}, log=log))
    [line] = page.all("polyline")
    places = np.array([pair.split(",") for pair in line["points"].split()], float)
    assert (places >= 0).all() and (places[:, 0] <= 460).all() and (places[:, 1] <= 230).all()
    assert len(places) == len([p for p in points if p[1] > 0 or not log])
    assert 2 <= len(page.all("line")) <= 12


def test_logarithmic_charts_are_straight_for_powers():
    powers = [(10, 2.0), (100, 20.0), (1000, 200.0)]
    drawn = log_charts({"a <b>": {"x": powers}, "empty": {"x": []}, "c": {"y": [(1, 1.0)]}})
    root = ElementTree.fromstring(drawn)
    lines = [*root.iter("{http://www.w3.org/2000/svg}polyline")]
    (x0, y0), (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in lines[0].attrib["points"].split())
    assert len(lines) == 2 and x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x0 < x1 and y0 > y1 and "a &lt;b&gt;" in drawn and "empty" not in drawn


def test_a_chart_of_nothing_is_left_out():
    assert chart("a", {"x": []}) == "" and chart("a", {"x": [(1, 0.0)]}, log=True) == ""


def test_the_cameras_up_is_the_drawings_up():
    poses = path(3, M, turn=0)
    poses[..., :3, :3] = Rotation.from_rotvec([0.2, 0, 0]).as_matrix() @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    assert np.allclose(_upright(poses) @ -poses[0, 0, 1, :3], [0, 0, 1])
    opposite = np.concatenate([poses, poses])
    opposite[3:, :, 1] *= -1
    assert np.array_equal(_upright(opposite), np.eye(3)), "cameras that hold nothing for up"
