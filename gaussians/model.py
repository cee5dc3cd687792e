"""The scene: 3D Gaussians with spherical-harmonic color, as raw (unconstrained) parameters."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from gaussians.ply import CLASSIC, GaussianParams, LowPass
from gaussians.sh import SH_C0

# Learned tensors, in the order of the PLY; each is a parameter group of the optimizer.
PARAMETERS = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")


class GaussianModel(nn.Module):
    """N Gaussians.  Raw parameters are attributes by name; properties give the activated values.

    Raw: ``means`` [N, 3] (world units), ``quats`` [N, 4] (wxyz, any length), ``log_scales`` [N, 3],
    ``opacity_logits`` [N], ``sh0`` [N, 1, C] and ``shN`` [N, (D+1)^2 - 1, C] with C = 1 (mono) or 3.
    ``low_pass`` is the screen-space filter that they are rendered with.
    """

    def __init__(self, raw: dict[str, Tensor], sh_degree: int, low_pass: LowPass = CLASSIC):
        super().__init__()
        coefficients = (sh_degree + 1) ** 2 - 1
        count, channels = len(raw["means"]), raw["sh0"].shape[-1]
        shapes = {
            "means": (count, 3), "quats": (count, 4), "log_scales": (count, 3), "opacity_logits": (count,),
            "sh0": (count, 1, channels), "shN": (count, raw["shN"].shape[1], channels),
        }  # fmt: skip
        for name, shape in shapes.items():
            found = tuple(raw[name].shape)
            if found != shape:
                raise ValueError(f"{name} of {count} Gaussians has the shape {found}, expected {shape}")
        if raw["shN"].shape[1] != coefficients:
            raise ValueError(
                f"Gaussians of SH degree {sh_degree} need {coefficients} coefficients in shN, "
                f"not {raw['shN'].shape[1]}"
            )
        self.sh_degree = sh_degree
        self.low_pass = low_pass
        self.raw = nn.ParameterDict({name: nn.Parameter(raw[name].float()) for name in PARAMETERS})

    @classmethod
    def of(cls, params: GaussianParams) -> GaussianModel:
        """Create Gaussians from the parameters of a file."""
        raw = {name: getattr(params, name) for name in PARAMETERS}
        return cls(raw, round((params.shN.shape[1] + 1) ** 0.5) - 1, params.low_pass)

    @property
    def params(self) -> GaussianParams:
        """The raw parameters and the low-pass."""
        return GaussianParams(**self.raw, low_pass=self.low_pass)

    @classmethod
    def from_points(
        cls,
        xyz: Tensor,
        colors: Tensor,
        sh_degree: int = 3,
        opacity: float = 0.1,
        low_pass: LowPass = CLASSIC,
    ) -> GaussianModel:
        """Isotropic Gaussians at points, each with the mean distance to its three nearest neighbors as scale.

        Args:
            xyz: points [N, 3], world units.
            colors: intensities [N, C] in [0, 1].
            opacity: initial opacity.
        """
        n, channels = colors.shape
        if n < 4:
            raise ValueError(f"a scene starts from at least 4 points, not {n}")
        distances, _ = cKDTree(xyz.cpu().numpy()).query(xyz.cpu().numpy(), k=4)
        width = torch.as_tensor(distances[:, 1:].mean(1), dtype=torch.float32, device=xyz.device)
        log_scales = width.clamp_min(1e-7).log()[:, None].repeat(1, 3)
        quats = torch.zeros(n, 4, device=xyz.device)
        quats[:, 0] = 1
        logits = torch.full((n,), opacity, device=xyz.device).logit()
        raw = {
            "means": xyz,
            "quats": quats,
            "log_scales": log_scales,
            "opacity_logits": logits,
            "sh0": ((colors - 0.5) / SH_C0)[:, None, :],
            "shN": torch.zeros(n, (sh_degree + 1) ** 2 - 1, channels, device=xyz.device),
        }
        return cls(raw, sh_degree, low_pass)

    @property
    def base_colors(self) -> Tensor:
        """Colors [N, C] without their view-dependent part."""
        return self.raw["sh0"][:, 0] * SH_C0 + 0.5

    def __len__(self) -> int:
        return len(self.raw["means"])

    @property
    def channels(self) -> int:
        """Color channels: 1 (mono) or 3."""
        return self.raw["sh0"].shape[-1]

    @property
    def means(self) -> Tensor:
        return self.raw["means"]

    @property
    def quats(self) -> Tensor:
        return self.raw["quats"]

    @property
    def scales(self) -> Tensor:
        return self.raw["log_scales"].exp()

    @property
    def opacities(self) -> Tensor:
        return self.raw["opacity_logits"].sigmoid()

    def coefficients(self, degree: int) -> Tensor:
        """Spherical-harmonic coefficients [N, (degree+1)^2, C] up to ``degree``; copying all would slow every step."""
        return torch.cat([self.raw["sh0"], self.raw["shN"][:, : (degree + 1) ** 2 - 1]], dim=1)
