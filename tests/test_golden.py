"""Training against its recorded runs: a change that is not meant to change what is learned must keep them.

Rounding differs between machines (instruction sets, bfloat16, threads of the convolutions), and grows: where a gradient
is all rounding, Adam's first steps have its sign and their full length.  One unit in the last place of the targets'
variance changes the loss by 4e-5 after one step, 1 % after ten, and the network's residual, which begins at zero, by
half.  So the first steps are compared closely, the later ones by their size, and what comes out after 300 steps by
what a change of seed does to it.  On one machine all runs are bit-identical: ``python tests/golden_runs.py --bits
FILE`` before and after a change.
"""

import pytest
from golden_runs import FOLDER, RUNS, quality, start, trace

# Relative tolerance of the loss and its terms up to a step, and absolute tolerance of Recon-Net's terms.
TOLERANCE = {5: 2e-3, 10: 3e-2, 20: 1e-1}
OF_NETWORK = {"joint": 3e-3, "rec": 3e-3}
# PSNR in dB, ATE relative.
AFTER = {"gaussians": 0.5, "recon": 1.0}
# Long enough to be worth their time in every test run; the script records all.
LONG = ("ours", "paper", "released")


def recorded(name: str) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Loss terms of every step, and what came out after 300."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    end = lines.index("after 300 steps")
    rows = [dict(zip(words[::2], map(float, words[1::2]), strict=True)) for words in map(str.split, lines[:end])]
    return rows, {key: float(value) for key, value in map(str.split, lines[end + 1 :])}


def test_every_run_is_recorded():
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_losses_of_the_first_steps(name, scene_folder, tmp_path):
    expected, _ = recorded(name)
    found = trace(start(name, 20, scene_folder, tmp_path), 20)
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for i, (row, known) in enumerate(zip(found, expected, strict=True), 1):
        tolerance = next(value for step, value in TOLERANCE.items() if i <= step)
        for term, value in row.items():
            close = pytest.approx(known[term], rel=tolerance, abs=OF_NETWORK.get(term, 1e-7))
            assert value == close, f"{term}, step {i}"


@pytest.mark.parametrize("name", LONG)
def test_what_comes_out(name, scene_folder, tmp_path):
    _, expected = recorded(name)
    training = start(name, 300, scene_folder, tmp_path)
    trace(training, 300)
    found = quality(training)
    assert found.keys() == expected.keys()
    for key, tolerance in AFTER.items():
        assert found[key] == pytest.approx(expected[key], abs=tolerance), key
    assert found["ate"] == pytest.approx(expected["ate"], rel=0.3)
