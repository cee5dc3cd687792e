"""A blind-spot network: denoises short exposures of a scene after training on these exposures alone.

The network sees everything around a pixel but the pixel itself, so noise that is independent between pixels cannot be
predicted, and training against the noisy image gives the clean one.  The layers are those of Laine et al. (2019) as
used by SSML (Chen et al., IJCAI 2022) and S-SDM (Chen et al. 2024): a one-sided U-Net on four rotations.  S-SDM trains
it on counts over 9 frames, and SpikeGS (Zhang et al. 2024, arXiv 2407.10062) uses a network of this kind as its first
stage; how SpikeGS trains it is not published in detail.  No code of theirs is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.images import color_planes
from recon_net.network import autocast
from scene.exposure import usable_margin
from spike import SensorModel, SpikeStream, WindowSpec, tfp
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.crops import Crop
from utils.randomness import generator
from utils.telling import progress

# Frames of the short exposure that is denoised.
WIDTH = 9
# Features of the published network.
PUBLISHED = 48
# Crops per step, and their side in pixels.
BATCH, SIDE = 4, 64
# Adam's first learning rate; it falls to zero along a cosine.
RATE = 1e-3


class _Up(nn.Module):
    """A 3x3 convolution that sees no row below the output's, followed by a leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, a=0.1)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(F.pad(x, (1, 1, 0, 0), mode="replicate"), (0, 0, 2, 0))
        return F.leaky_relu(self.conv(padded), 0.1)


def _down_one(x: Tensor) -> Tensor:
    """The rows shifted down by one; the first becomes zero."""
    return F.pad(x, (0, 0, 1, 0))[..., :-1, :]


class _Block(nn.Module):
    def __init__(self, *channels: int):
        super().__init__()
        self.count = len(channels) - 1
        for i, (channels_in, channels_out) in enumerate(pairwise(channels), 1):
            setattr(self, f"conv{i}", _Up(channels_in, channels_out))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.count):
            x = getattr(self, f"conv{i + 1}")(x)
        return x


class _OneSided(nn.Module):
    """A U-Net whose output depends only on rows above the output's."""

    def __init__(self, width: int):
        super().__init__()
        w = width
        self.enc1, self.enc2, self.enc3 = _Block(1, w, w, w), _Block(w, w, w, w), _Block(w, 2 * w, 2 * w, w)
        self.dec2, self.dec1 = _Block(*[2 * w] * 5), _Block(2 * w + 1, *[2 * w] * 4)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, 2 width, H, W] of [B, 1, H, W]; H and W are multiples of 4."""
        half = F.max_pool2d(_down_one(self.enc1(x)), 2)
        quarter = F.max_pool2d(_down_one(self.enc2(half)), 2)
        coarse = F.interpolate(self.enc3(quarter), scale_factor=2)
        fine = F.interpolate(self.dec2(torch.cat([coarse, half], 1)), scale_factor=2)
        return _down_one(self.dec1(torch.cat([fine, x.to(fine.dtype)], 1)))


class BlindSpotNet(nn.Module):
    """The blind-spot network for gray images.

    Args:
        width: features; the published network has 48 and 1,118,832 parameters, 24 is for CPUs (280,056).

    There are no biases, so the output is proportional to the input.
    """

    def __init__(self, width: int = PUBLISHED):
        super().__init__()
        self.width = width
        self.unet = _OneSided(width)
        self.nin_A, self.nin_B = (
            nn.Conv2d(8 * width, channels, 1, bias=False) for channels in (8 * width, 2 * width)
        )
        self.nin_C = nn.Conv2d(2 * width, 1, 1, bias=False)
        for layer in (self.nin_A, self.nin_B):
            nn.init.kaiming_normal_(layer.weight, a=0.1)
        nn.init.kaiming_normal_(self.nin_C.weight, nonlinearity="linear")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, H, W], float32, of any size, predicted from the surround of each pixel."""
        with autocast(images.device):
            turned = [self._sides(images, (0, 2)), self._sides(images, (1, 3))]
            sides = torch.cat([turned[0][0], turned[1][0], turned[0][1], turned[1][1]], 1)
            x = F.leaky_relu(self.nin_A(sides), 0.1)
            return self.nin_C(F.leaky_relu(self.nin_B(x), 0.1)).float()

    def _sides(self, images: Tensor, turns: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features [B, 2 width, H, W] of the images turned by two multiples of 90 degrees, turned back."""
        turned = torch.cat([torch.rot90(images, k, (2, 3)) for k in turns])
        height, width = turned.shape[2:]
        # Rows below the output's are not seen, and columns are padded from their own rows: no pixel sees itself.
        padded = F.pad(F.pad(turned, (0, -width % 4, 0, 0), mode="replicate"), (0, 0, 0, -height % 4))
        features = self.unet(padded.contiguous(memory_format=torch.channels_last))[..., :height, :width]
        first, second = (
            torch.rot90(part, -k, (2, 3)) for part, k in zip(features.chunk(2), turns, strict=True)
        )
        return first, second


def blind_loss(network: BlindSpotNet, images: Tensor) -> Tensor:
    """Mean squared difference [] between noisy images [B, 1, H, W] and their prediction from the surround."""
    return F.mse_loss(network(images), images)


def learn_blind_spot(
    streams: Sequence[SpikeStream], gain: float, width: int, steps: int, seed: int, device: torch.device,
) -> BlindSpotNet:  # fmt: skip
    """Train a network on short exposures of some streams at random times.

    Args:
        gain: spikes per frame for white; brings intensities to the scale of the learning rate.
        width: the network's features.

    Raises:
        ValueError: a stream of fewer frames than the exposure.
    """
    for stream in streams:
        if len(stream) < WIDTH:
            raise ValueError(f"{stream.name}: {len(stream)} frames, expected at least {WIDTH}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BlindSpotNet(width).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for step in progress(range(steps), "Blind-spot network"):
        random = generator("batch", seed, step)
        crops = torch.stack([_crop(streams, random) for _ in range(BATCH)])
        loss = blind_loss(network, crops.to(device) / gain)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _crop(streams: Sequence[SpikeStream], random: torch.Generator) -> Tensor:
    """A random crop [1, s, s] of a short exposure at a random time; one color of a color sensor."""
    stream = streams[int(torch.randint(len(streams), (), generator=random))]
    start = int(torch.randint(len(stream) - WIDTH + 1, (), generator=random))
    planes = color_planes(tfp(stream.unpack(start, start + WIDTH), 0, WIDTH), stream)
    plane = planes[int(torch.randint(len(planes), (), generator=random))]
    height, width = plane.shape
    crop = Crop.random(min(SIDE, height, width), height, width, random).of(plane)
    return torch.rot90(crop, int(torch.randint(4, (), generator=random)))[None]


@dataclass(frozen=True)
class BlindSpot:
    """Images by a blind-spot network: SpikeGS's images."""

    network: BlindSpotNet

    @torch.no_grad()
    def __call__(self, stream: SpikeStream, spec: WindowSpec, sensor: SensorModel, u: float = 0.5) -> Tensor:
        """See ``baselines.images.ImageProvider``."""
        margin = usable_margin(stream, spec)
        start = margin + spec.frame(u) - WIDTH // 2
        rate = tfp(stream.central(spec, margin), start, start + WIDTH)
        device = next(self.network.parameters()).device
        for plane in color_planes(rate, stream):
            plane.copy_(self.network(plane[None, None].to(device))[0, 0])
        return sensor.intensity(rate)[None]


def save_blind_spot(path: str | Path, network: BlindSpotNet) -> None:
    """Write a network's width and weights.

    Raises:
        ValueError: the file cannot be written.
    """
    save_checkpoint(path, {"width": network.width, "weights": network.state_dict()})


def load_blind_spot(path: str | Path) -> BlindSpotNet:
    """Read what ``save_blind_spot`` wrote, on the CPU; no code in the file is executed.

    Raises:
        ValueError: missing, damaged, of another version, or no blind-spot network.
    """
    stored = load_checkpoint(path)
    try:
        network = BlindSpotNet(stored["width"])
        network.load_state_dict(stored["weights"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: expected a blind-spot network with its width ({reason})") from None
    return network.eval()
