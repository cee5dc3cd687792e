"""A render function in the layout of 3DGS and its forks: their import, their camera and model, their dictionary."""

from __future__ import annotations

import math

import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer


class Camera:
    """What these programs call a viewpoint camera: matrices for row vectors."""

    def __init__(self, w2c: torch.Tensor, fov_x: float, fov_y: float, width: int, height: int):
        self.FoVx, self.FoVy, self.image_width, self.image_height = fov_x, fov_y, width, height
        near, far = 0.01, 100.0
        projection = torch.zeros(4, 4)
        projection[0, 0], projection[1, 1] = 1 / math.tan(fov_x / 2), 1 / math.tan(fov_y / 2)
        projection[2, 2], projection[2, 3], projection[3, 2] = far / (far - near), -far * near / (far - near), 1
        self.world_view_transform = w2c.T
        self.full_proj_transform = self.world_view_transform @ projection.T
        self.camera_center = self.world_view_transform.inverse()[3, :3]


def render(viewpoint_camera, pc, pipe, bg_color, scaling_modifier=1.0, override_color=None):
    """``pc`` has get_xyz, get_opacity, get_scaling, get_rotation, get_features and active_sh_degree."""
    screenspace_points = torch.zeros_like(pc.get_xyz, requires_grad=True) + 0
    screenspace_points.retain_grad()
    settings = GaussianRasterizationSettings(
        image_height=int(viewpoint_camera.image_height),
        image_width=int(viewpoint_camera.image_width),
        tanfovx=math.tan(viewpoint_camera.FoVx * 0.5),
        tanfovy=math.tan(viewpoint_camera.FoVy * 0.5),
        bg=bg_color,
        scale_modifier=scaling_modifier,
        viewmatrix=viewpoint_camera.world_view_transform,
        projmatrix=viewpoint_camera.full_proj_transform,
        sh_degree=pc.active_sh_degree,
        campos=viewpoint_camera.camera_center,
        prefiltered=False,
        debug=pipe.debug,
        antialiasing=pipe.antialiasing,
    )
    rasterizer = GaussianRasterizer(raster_settings=settings)
    rendered_image, radii, depth_image = rasterizer(
        means3D=pc.get_xyz,
        means2D=screenspace_points,
        shs=pc.get_features if override_color is None else None,
        colors_precomp=override_color,
        opacities=pc.get_opacity,
        scales=pc.get_scaling,
        rotations=pc.get_rotation,
        cov3D_precomp=None,
    )
    return {
        "render": rendered_image.clamp(0, 1),
        "viewspace_points": screenspace_points,
        "visibility_filter": (radii > 0).nonzero(),
        "radii": radii,
        "depth": depth_image,
    }
