"""Views and their files: the usual places, endings, what has no partner, photographs of other sizes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch

from conversion.structure_from_motion import solution_of
from scene.cameras import opengl
from scene.colmap import open_model
from scene.dataset import read_scene
from scene.views import load_picture
from spike import write_dat
from utils.io import image_size, save_image

WIDTH, HEIGHT, FRAMES, VIEWS = 16, 8, 20, 4
NAMES = [f"{i:03d}" for i in range(VIEWS)]


def w2c(i: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = [0.1 * i, 0.02 * i * i, 0]
    return pose


def stream(root: Path, name: str) -> None:
    write_dat(root / "spike_data" / name, np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8))


def photo(root: Path, name: str, width: int = WIDTH, height: int = HEIGHT) -> None:
    """An image that is bright in its right half."""
    image = np.zeros((height, width))
    image[:, width // 2 :] = 1
    save_image(root / name, image)


def transforms(root: Path, files, **more) -> None:
    frames = [{"file_path": f, "transform_matrix": opengl(w2c(i))} for i, f in enumerate(files)]
    (root / "transforms.json").write_text(json.dumps({"fl_x": 20, "w": WIDTH, "h": HEIGHT, "frames": frames} | more))


def colmap(folder: Path, names, blank: bool = True, points: str | None = "1 0.5 0.25 2 255 0 51 0.1\n") -> None:
    """A model as text, with or without the lines of image points."""
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text(f"1 PINHOLE {WIDTH} {HEIGHT} 20 21 8 4\n")
    rows = [f"{i + 1} 1 0 0 0 {' '.join(f'{v:g}' for v in w2c(i)[:3, 3])} 1 {name}\n" for i, name in enumerate(names)]
    (folder / "images.txt").write_text("# a comment\n" + ("\n" if blank else "").join(rows) + ("\n" if blank else ""))
    if points is not None:
        (folder / "points3D.txt").write_text(points)


def listed(root: Path, **given) -> list[str]:
    return [view.camera.name for view in read_scene(root, **given).train]


# ---- COLMAP's places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["sparse/0", "sparse", "colmap/sparse/0", "distorted/sparse/0"])
@pytest.mark.parametrize("images", ["images", "input"])
def test_the_usual_places_are_looked_at(tmp_path, folder, images):
    colmap(tmp_path / folder, [f"{name}.png" for name in NAMES])
    for name in NAMES:
        photo(tmp_path, f"{images}/{name}.png")
    scene = read_scene(tmp_path)
    assert [view.image_path for view in scene.train] == [tmp_path / images / f"{name}.png" for name in NAMES]
    assert scene.points.tolist() == [[0.5, 0.25, 2.0]] and scene.notes == ()


@pytest.mark.parametrize("binary", [False, True])
def test_poses_are_enough(tmp_path, binary):
    """No file of points: training then starts in the views' frusta."""
    colmap(tmp_path / "sparse/0", [f"{name}.png" for name in NAMES], points="")
    if binary:
        pycolmap.Reconstruction(tmp_path / "sparse/0").write_binary(tmp_path / "sparse/0")
        for file in (tmp_path / "sparse/0").glob("*.txt"):
            file.unlink()
    (tmp_path / "sparse/0" / f"points3D.{'bin' if binary else 'txt'}").unlink()
    scene = read_scene(tmp_path)
    assert len(scene.train) == VIEWS and scene.points is None
    assert not list((tmp_path / "sparse/0").glob("points3D*"))  # inputs are not written


def test_points_without_tracks_are_points(tmp_path):
    """As programs other than COLMAP write them; convert.py --from_colmap reads models through this function."""
    colmap(tmp_path / "sparse/0", [f"{name}.png" for name in NAMES])
    found = solution_of(open_model(tmp_path / "sparse/0"), 1.0, "test")
    assert found.xyz.tolist() == [[0.5, 0.25, 2.0]] and found.angle == 0 and np.isfinite(found.error)


def test_a_home_made_list_of_images_keeps_all_of_them(tmp_path):
    colmap(tmp_path / "sparse/0", [f"{name}.png" for name in NAMES], blank=False)
    assert listed(tmp_path) == NAMES
    file = tmp_path / "sparse/0/images.txt"
    file.write_text(file.read_text().replace("000.png\n", "000.png\n5.0 4.0 -1 3.0 2.0 1 1.0 2.0 -1 7.5\n"[:-5] + "\n"))
    assert len(open_model(tmp_path / "sparse/0").images) == VIEWS


def test_a_larger_model_beside_the_one_that_is_used_is_said(tmp_path):
    colmap(tmp_path / "sparse/0", ["000.png", "001.png"])
    colmap(tmp_path / "sparse/1", [f"{name}.png" for name in NAMES])
    colmap(tmp_path / "sparse/2", ["003.png"])
    scene = read_scene(tmp_path)
    [note] = scene.notes
    assert note.endswith(f"sparse/1 has 4 images, {tmp_path}/sparse/0 only 2; the latter is used")
    with pytest.raises(ValueError, match="only 2; the latter is used; --strict refuses that"):
        read_scene(tmp_path, strict=True)


# ---- views without spikes, spikes without views ----------------------------------------------------------


def test_views_and_streams_without_a_partner_are_counted(tmp_path):
    colmap(tmp_path / "sparse/0", ["helpers/000.png", *(f"{name}.png" for name in (*NAMES, "photo"))])
    for name in (*NAMES[1:], "extra", "more"):
        stream(tmp_path, f"{name}.dat")
    scene = read_scene(tmp_path)
    assert [view.camera.name for view in scene.train] == NAMES[1:]
    assert [view.position for view in scene.train] == [0, 1, 2]  # as if the others were not listed
    first, second = scene.notes
    assert first == (
        f"3 of 6 views in {tmp_path}/sparse/0 have no stream in {tmp_path}/spike_data and are left out "
        "(000, helpers_000, photo)"
    )
    assert second.startswith("2 of 5 streams in ") and second.endswith("are not used (extra.dat, more.dat)")
    with pytest.raises(ValueError, match=r"3 of 6 views in .*; --strict refuses that"):
        read_scene(tmp_path, strict=True)


def test_a_view_whose_stream_is_missing_leaves_a_gap_in_time(tmp_path):
    transforms(tmp_path, [f"sharp_data/{name}.png" for name in NAMES])
    for name in ("000", "001", "003"):
        stream(tmp_path, f"{name}.dat")
    assert [view.position for view in read_scene(tmp_path).train] == [0, 1, 3]


def test_photographs_with_absolute_paths_are_reduced(tmp_path, monkeypatch):
    """In a scene that is named relative to where the program runs."""
    transforms(tmp_path, [str(tmp_path / f"images/{name}.png") for name in NAMES])
    for name in NAMES:
        photo(tmp_path, f"images/{name}.png")
    monkeypatch.chdir(tmp_path.parent)
    whole, half = (read_scene(tmp_path.name, resolution=factor).size for factor in (1, 2))
    assert half == (whole[0] // 2, whole[1] // 2)


def test_spikes_are_no_image(tmp_path):
    """Some list the streams as the files of the views."""
    for name in NAMES:
        stream(tmp_path, f"{name}.dat")
    transforms(tmp_path, [f"spike_data/{name}.dat" for name in NAMES])
    assert all(view.image_path is None for view in read_scene(tmp_path).train)


def test_a_view_may_have_another_name_than_its_file(tmp_path):
    transforms(tmp_path, ["images/left/0.png", "images/right/0.png"])
    file = tmp_path / "transforms.json"
    content = json.loads(file.read_text())
    for frame, name in zip(content["frames"], ("left_0", "right_0"), strict=True):
        frame["name"] = name
        stream(tmp_path, f"{name}.dat")
    file.write_text(json.dumps(content))
    photo(tmp_path, "sharp_data/left_0.png")
    left, right = read_scene(tmp_path).train
    assert (left.camera.name, right.camera.name) == ("left_0", "right_0")
    assert left.image_path == tmp_path / "sharp_data/left_0.png" and right.image_path is None
    content["frames"][1]["name"] = "right/0"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="the name of a view is 'right/0', expected one without folders"):
        read_scene(tmp_path)


def test_photographs_of_the_same_name_in_two_folders(tmp_path):
    """Several cameras, or a helper beside the views."""
    files = ["left/0.png", "right/0.png", "0.png", "right/1.png"]
    colmap(tmp_path / "sparse/0", files)
    for file in files:
        photo(tmp_path, f"images/{file}")
    views = read_scene(tmp_path).train
    assert {view.camera.name: str(view.image_path.relative_to(tmp_path / "images")) for view in views} == {
        "0": "0.png", "left_0": "left/0.png", "right_0": "right/0.png", "1": "right/1.png"
    }  # fmt: skip
    stream(tmp_path, "0.dat")
    stream(tmp_path, "1.dat")
    assert listed(tmp_path) == ["0", "1"]
    # The truth of the spikes of a view is called like the view.
    for file in ("images/left/0.png", "images/right/0.png"):
        (tmp_path / file).unlink()
    stream(tmp_path, "left_0.dat")
    photo(tmp_path, "sharp_data/left_0.png")
    views = {view.camera.name: view for view in read_scene(tmp_path).train}
    assert views["left_0"].image_path == tmp_path / "sharp_data/left_0.png"


def test_images_that_are_asked_for_are_used_whatever_has_spikes(tmp_path):
    transforms(tmp_path, [f"sharp_data/{name}.png" for name in NAMES])
    stream(tmp_path, "001.dat")
    for name in NAMES:
        photo(tmp_path, f"sharp_data/{name}.png")
    assert listed(tmp_path) == ["001"] and listed(tmp_path, from_images=True) == NAMES


def test_views_without_an_image_are_left_out_and_counted(tmp_path):
    """instant-ngp's fox lists blurred photographs that are not there."""
    transforms(tmp_path, [f"images/{name}.png" for name in NAMES])
    for name in NAMES[:2]:
        photo(tmp_path, f"images/{name}.png")
    scene = read_scene(tmp_path)
    assert [view.camera.name for view in scene.train] == NAMES[:2]
    json_file = tmp_path / "transforms.json"
    assert scene.notes == (f"2 of 4 views in {json_file} have no image in {tmp_path} and are left out (002, 003)",)
    with pytest.raises(ValueError, match=r"2 of 4 views in .* have no image .*; --strict refuses that"):
        read_scene(tmp_path, strict=True)


def test_names_that_do_not_match_at_all_are_explained(tmp_path):
    """The authors' documented layout pairs by order; here names decide, and the message says how."""
    transforms(tmp_path, [f"images/frame_{i:05d}.png" for i in range(1, 5)])
    for i in range(19, 23):
        stream(tmp_path, f"{i:06d}.dat")
    message = r"none of its 4 views \(frame_00001, ...\) is named like one of the 4 streams in .* \(000019.dat"
    with pytest.raises(ValueError, match=message + r'.*"spike_path": "spike_data/000019.dat".*--images'):
        read_scene(tmp_path)


# ---- how files are written down --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("images/a.jpg", "images/a.JPG"),
        ("images/a.PNG", "images/a.png"),
        ("images/a", "images/a.png"),
        ("./images/a", "images/a.JPEG"),
        ("images\\a.png", "images/a.png"),
        ("images/a.png", "sharp_data/a.png"),
        ("a", "sharp_data/a.PNG"),
    ],
)
def test_images_are_found_however_they_are_written(tmp_path, written, file):
    transforms(tmp_path, [written])
    photo(tmp_path, f"{Path(file).with_suffix(Path(file).suffix.lower())}")
    if Path(file).suffix.isupper():
        (tmp_path / file).parent.joinpath(Path(file).stem + Path(file).suffix.lower()).rename(tmp_path / file)
    [view] = read_scene(tmp_path).train
    assert view.camera.name == "a" and view.image_path == tmp_path / file


@pytest.mark.parametrize("name", ["a.DAT", "a.dat", "a.Dat"])
def test_streams_are_found_whatever_the_case_of_their_ending(tmp_path, name):
    transforms(tmp_path, ["sharp_data\\a.png"])
    stream(tmp_path, "a.dat")
    (tmp_path / "spike_data/a.dat").rename(tmp_path / "spike_data" / name)
    scene = read_scene(tmp_path)
    assert scene.train[0].spike_path == tmp_path / "spike_data" / name and scene.frames_per_view == FRAMES


# ---- photographs -----------------------------------------------------------------------------------------


def photos(root: Path, width: int, height: int, folder: str = "images") -> Path:
    if not (root / "sparse").exists():
        colmap(root / "sparse/0", [f"{name}.png" for name in NAMES])
    for name in NAMES:
        photo(root, f"{folder}/{name}.png", width, height)
    return root


def test_a_camera_follows_the_size_of_its_image(tmp_path):
    scene = read_scene(photos(tmp_path, 2 * WIDTH, 2 * HEIGHT))
    view = scene.train[0]
    assert (view.camera.width, view.camera.height) == (2 * WIDTH, 2 * HEIGHT)
    assert view.camera.K.tolist() == [[40, 0, 16], [0, 42, 8], [0, 0, 1]]
    assert scene.notes[0].startswith("images of 32x16 pixels, cameras of 16x8: the intrinsics are scaled")
    assert load_picture(view, view.image_path, 1).shape == (1, 16, 32)


def test_an_image_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"000\.png: 16x16 pixels, expected the shape of 16x8"):
        read_scene(photos(tmp_path, WIDTH, 2 * HEIGHT))


@pytest.mark.parametrize("there", [False, True])
def test_reduced_photographs_are_read_or_made(tmp_path, there):
    """3DGS's -r 2: from images_2 if it is there."""
    photos(tmp_path, WIDTH, HEIGHT)
    if there:
        photos(tmp_path, WIDTH // 2, HEIGHT // 2, "images_2")
    view = read_scene(tmp_path, resolution=2).train[1]
    assert view.image_path == tmp_path / ("images_2" if there else "images") / "001.png"
    assert (view.camera.width, view.camera.height) == (8, 4) and view.camera.K[0].tolist() == [10, 0, 4]
    picture = load_picture(view, view.image_path, 1)
    assert picture.shape == (1, 4, 8) and torch.equal(picture[0, 0], torch.tensor([0.0] * 4 + [1] * 4))


def test_another_folder_of_images(tmp_path):
    photos(photos(tmp_path, WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2, "images_2")
    view = read_scene(tmp_path, image_folder="images_2").train[0]
    assert view.image_path == tmp_path / "images_2/000.png" and view.camera.width == WIDTH // 2
    with pytest.raises(ValueError, match="photos: no such folder of images"):
        read_scene(tmp_path, image_folder="photos")


def test_large_photographs_are_reduced(tmp_path):
    photos(tmp_path, 1616, 808)
    view = read_scene(tmp_path).train[0]
    assert view.reduced == 2 and (view.camera.width, view.camera.height) == (808, 404)
    assert read_scene(tmp_path, resolution=1).train[0].camera.width == 1616


def test_spikes_cannot_be_reduced(tmp_path):
    transforms(tmp_path, ["sharp_data/a.png"])
    stream(tmp_path, "a.dat")
    for given in ({"resolution": 2}, {"image_folder": "images"}):
        with pytest.raises(ValueError, match="are for photographs; spikes cannot be resampled"):
            read_scene(tmp_path, **given)


@pytest.mark.parametrize("size", [(1, 1), (17, 3), (300, 9)])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_the_size_of_an_image_is_in_its_header(tmp_path, size, ending):
    save_image(tmp_path / f"a.{ending}", np.zeros((size[1], size[0], 3)))
    assert image_size(tmp_path / f"a.{ending}") == size


def test_a_file_that_is_no_image_has_no_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\xff\xd8\xff\xc0")
    for name in ("a.png", "b.png"):
        with pytest.raises(ValueError, match=f"{name}: (not a readable image|no such image)"):
            image_size(tmp_path / name)


def test_moving_the_folder_changes_nothing(tmp_path):
    photos(tmp_path / "here", WIDTH, HEIGHT)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert read_scene(tmp_path / "there").train[0].image_path == tmp_path / "there/images/000.png"
