"""The folder of a rendered model: images whose error is known, of a scene whose trajectory is known."""

import json
import sys

import numpy as np
import torch
from made_up_paths import path

import metrics
from arguments import PaperSettings
from evaluation.images import frames_by_protocol, rendered_images
from pictures.kinds import GAUSSIANS, RECON_NET, TRUTH
from scene.manifest import (
    DEBLURRING,
    HELD_OUT,
    SavedImage,
    image_name,
    images_folder,
    write_manifest,
)
from training.trained_model import TrainedModel
from utils.io import save_image

M = 3
H, W = 16, 24
OPENGL = np.diag([1.0, -1, -1, 1])


def image(value):
    return torch.full((1, H, W), float(value))


def entry(name, poses, split="train"):
    known = {"name": name, "split": split, "iteration": 7, "width": W, "height": H}
    known |= {"fx": 20.0, "fy": 20.0, "cx": W / 2, "cy": H / 2}
    return known | {"w2c": np.asarray(poses).tolist(), "time": np.linspace(0, 1, len(poses)).tolist()}


def write_scene(root, names, truth):
    root.mkdir(parents=True)
    frames = [
        {"file_path": f"sharp_data/{n}.png", "transform_matrix": (np.linalg.inv(p[len(p) // 2]) @ OPENGL).tolist()}
        for n, p in zip(names, truth, strict=True)
    ]
    meta = {"fl_x": 20.0, "w": W, "h": H, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(meta))
    table = {n: p.tolist() for n, p in zip(names, truth, strict=True)}
    (root / "trajectory.json").write_text(json.dumps({"w2c": table}))


class Model:
    """A rendered model: images whose error is known, from a scene whose trajectory is known."""

    def __init__(self, root, names=("000", "001", "002"), estimate=None, truth=None):
        self.root, self.names = root / "out", list(names)
        self.truth = path(len(self.names), M) if truth is None else truth
        self.scene = root / "scene"
        write_scene(self.scene, self.names, self.truth)
        folders = {"source_path": str(self.scene), "model_path": str(self.root)}
        settings = PaperSettings.of(**folders, subframes=self.truth.shape[1])
        settings.save(self.root)
        (self.root / "point_cloud" / "iteration_7").mkdir(parents=True)
        (self.root / "point_cloud" / "iteration_7" / "point_cloud.ply").touch()
        estimate = self.truth if estimate is None else estimate
        self.cameras = [entry(n, p) for n, p in zip(self.names, estimate, strict=True)]
        self.save_cameras()
        self.settings = settings
        self.images = {"train": {}, "test": {}}

    def save_cameras(self):
        (self.root / "cameras.json").write_text(json.dumps(self.cameras))

    def put(self, split, kind, view, value, subframe=None, protocol=None):
        """Leave an image of one gray as render.py does, and list it in the manifest."""
        file = f"{kind.folder}/{image_name(view, subframe)}.png"
        protocol = protocol or (DEBLURRING if split == "train" else HELD_OUT)
        u = 0.5 if subframe is None else subframe / (M - 1)
        save_image(images_folder(self.root, split, 7) / file, image(value), bits=16)
        self.images[split][file] = SavedImage(file, kind.name, split, protocol, view, subframe, u)
        self.list_images(split)

    def list_images(self, split):
        write_manifest(images_folder(self.root, split, 7), list(self.images[split].values()))

    @property
    def train(self):
        return images_folder(self.root, "train", 7)

    @property
    def trained(self):
        return TrainedModel.load(self.root, 7)

    def frames(self):
        """The rendered frames of the training views."""
        return frames_by_protocol(self.root, 7, rendered_images(self.root, "train", 7))[DEBLURRING]

    def run(self, monkeypatch, *flags):
        monkeypatch.setattr(metrics, "load_lpips", lambda net: (None, "no weights here"))
        monkeypatch.setattr(sys, "argv", ["metrics.py", "-m", str(self.root), *flags])
        assert metrics.main() == 0
        return json.loads((self.root / "results.json").read_text())


# Truth at the three sub-frames.
TRUE = (0.2, 0.5, 0.8)


def put_subframes(model, back=()):
    """Renders that are 0.1 off; those of ``back`` run backwards in time.  Recon-Net is 0.01 off."""
    for name in model.names:
        order = TRUE[::-1] if name in back else TRUE
        model.put("train", TRUTH, name, TRUE[1])
        model.put("train", GAUSSIANS, name, TRUE[1] + 0.1)
        model.put("train", RECON_NET, name, TRUE[1] + 0.01)
        for m in range(M):
            model.put("train", TRUTH, name, TRUE[m], m)
            model.put("train", GAUSSIANS, name, order[m] + 0.1, m)
            model.put("train", RECON_NET, name, TRUE[m] + 0.01, m)
