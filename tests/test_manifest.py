"""The manifest lists what one run of render.py wrote, whole or not at all, and is read with care."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from pictures.kinds import BASELINES, BY_NAME, GAUSSIANS, IMAGE, KINDS, METHODS, TRUTH
from scene.manifest import (
    DEBLURRING,
    HELD_OUT,
    MANIFEST,
    ImageWriter,
    SavedImage,
    images_folder,
    read_manifest,
    require_files,
)
from utils.io import load_image

GRAY = np.full((6, 8), 0.5, np.float32)
GOOD = asdict(SavedImage("renders/a_02.png", "gaussians", "train", DEBLURRING, "a", 2, 0.25))


def write(model, split="train", views=("a",)):
    with ImageWriter(model, split, 7) as images:
        for view in views:
            images.save(GAUSSIANS, DEBLURRING, view, None, 0.5, GRAY)
            images.save(TRUTH, DEBLURRING, view, 2, 0.25, GRAY / 2)
    return images_folder(model, split, 7)


def test_kinds_have_names_and_folders_of_their_own():
    assert len(BY_NAME) == len({kind.folder for kind in BY_NAME.values()}) == len(KINDS) + 1
    assert {*METHODS, *BASELINES, TRUTH} == set(KINDS) and IMAGE not in KINDS


def test_what_was_written_is_read(tmp_path):
    folder = write(tmp_path)
    first, second = read_manifest(tmp_path, "train", 7)
    assert first == SavedImage("renders/a.png", "gaussians", "train", DEBLURRING, "a", None, 0.5)
    assert second == SavedImage("gt/a_02.png", "truth", "train", DEBLURRING, "a", 2, 0.25)
    assert (first.name, second.name) == ("a", "a_02")
    assert float(load_image(folder / second.file).mean()) == pytest.approx(0.25, abs=1e-4)
    stored = json.loads((folder / MANIFEST).read_text())
    assert stored[1] == {"file": "gt/a_02.png", "kind": "truth", "split": "train", "protocol": "deblurring",
                         "view": "a", "subframe": 2, "u": 0.25}  # fmt: skip
    require_files(tmp_path, 7, [first, second])


def test_an_interrupted_run_leaves_no_manifest(tmp_path):
    folder = write(tmp_path)
    with pytest.raises(KeyboardInterrupt), ImageWriter(tmp_path, "train", 7) as images:
        # The old list goes before the first of its images is overwritten.
        assert not (folder / MANIFEST).exists()
        images.save(GAUSSIANS, DEBLURRING, "a", None, 0.5, GRAY)
        raise KeyboardInterrupt
    assert not (folder / MANIFEST).exists() and (folder / "renders/a.png").exists()
    with pytest.raises(ValueError, match=rf"run render\.py -m {tmp_path} --iteration 7$"):
        read_manifest(tmp_path, "train", 7)


def test_splits_and_iterations_have_manifests_of_their_own(tmp_path):
    folder = write(tmp_path)
    before = (folder / MANIFEST).read_bytes()
    write(tmp_path, "test", ("b", "c"))
    write(tmp_path, "test", ("b",))
    assert (folder / MANIFEST).read_bytes() == before
    assert {image.view for image in read_manifest(tmp_path, "test", 7)} == {"b"}
    with pytest.raises(ValueError, match=r"ours_8/manifest\.json"):
        read_manifest(tmp_path, "train", 8)


def test_two_images_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"renders/a_01\.png: an image of view a_01 and one of a have this name"):
        with ImageWriter(tmp_path, "train", 7) as images:
            images.save(GAUSSIANS, DEBLURRING, "a_01", None, 0.5, GRAY)
            images.save(GAUSSIANS, DEBLURRING, "a", 1, 0.1, GRAY)
    assert not (images_folder(tmp_path, "train", 7) / MANIFEST).exists()


def put(model, content):
    path = images_folder(model, "train", 7) / MANIFEST
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ({"images": []}, r'is {"images": \[\]}, expected a list'),
        ([3], r"\[0\] is 3, expected an object"),
        ([{"file": "renders/a.png"}], r"\[0\] has no kind"),
        ([GOOD | {"more": 1}], 'has the key "more", expected an object with any of file, kind'),
        ([GOOD | {"file": "../a.png"}], r'file is "\.\./a\.png", expected a path inside the folder'),
        ([GOOD | {"file": "renders/../../a.png"}], "expected a path inside the folder"),
        ([GOOD | {"file": "/etc/a.png"}], "expected a path inside the folder"),
        ([GOOD | {"file": "..\\a.png"}], "expected a path inside the folder"),
        ([GOOD | {"file": ""}], "expected a path inside the folder"),
        ([GOOD | {"file": 3}], "file is 3, expected text"),
        ([GOOD | {"kind": "Gaussians"}], 'kind is "Gaussians", expected one of long_exposure, '),
        ([GOOD | {"kind": ["gaussians"]}], "kind is "),
        ([GOOD | {"split": "test"}], 'split is "test", expected train'),
        ([GOOD | {"protocol": "all"}], 'protocol is "all", expected one of deblurring, training views, held out'),
        ([GOOD | {"view": ""}], 'view is "", expected text of at least one character'),
        ([GOOD | {"subframe": "2"}], 'subframe is "2", expected a whole number from 0'),
        ([GOOD | {"subframe": -1}], "subframe is -1"),
        ([GOOD | {"subframe": True}], "subframe is true"),
        ([GOOD | {"u": None}], "u is null, expected a number of at least 0 and at most 1"),
        ([GOOD | {"u": 1.5}], "u is 1.5"),
        ([GOOD | {"u": float("nan")}], "u is NaN"),
        ([GOOD, GOOD], r"expected every file once, but renders/a_02\.png is listed 2 times"),
    ],
)
def test_broken_manifests_are_named(tmp_path, content, message):
    put(tmp_path, content)
    with pytest.raises(ValueError, match=rf"train/ours_7/manifest\.json: .*{message}") as error:
        read_manifest(tmp_path, "train", 7)
    assert str(error.value).endswith(f"run render.py -m {tmp_path} --iteration 7") and "\n" not in str(error.value)


def test_files_that_are_gone_are_named(tmp_path):
    folder = write(tmp_path)
    (folder / "gt/a_02.png").unlink()
    with pytest.raises(ValueError, match=r"gt/a_02\.png is listed but missing"):
        require_files(tmp_path, 7, read_manifest(tmp_path, "train", 7))


def test_held_out_is_a_protocol_of_the_test_split(tmp_path):
    with ImageWriter(tmp_path, "test", 7) as images:
        images.save(GAUSSIANS, HELD_OUT, "a", None, 0.5, GRAY)
    [image] = read_manifest(tmp_path, "test", 7)
    assert (image.split, image.protocol) == ("test", HELD_OUT)
