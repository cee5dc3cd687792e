"""Names of version 0.1.0, accepted for one more version: flags, presets and ``cfg_args.json``."""

from __future__ import annotations

from typing import Any

# Flags by their old names.
FLAGS = {
    "sh_every": "sh_degree_interval",
    "cap": "cap_max",
    "init_points": "init_num_pts",
    "init_opacity": "init_opa",
    "densify_from": "densify_from_iter",
    "densify_until": "densify_until_iter",
    "densify_every": "densification_interval",
    "densify_grad": "densify_grad_threshold",
    "opacity_reset_every": "opacity_reset_interval",
    "optimise_poses": "pose_opt",
    "pose_lr": "pose_opt_lr",
    "pose_lr_final": "pose_opt_lr_final",
    "opacity_lr": "opacities_lr",
    "scale_lr": "scales_lr",
    "rotation_lr": "quats_lr",
    "lambda_opacity": "opacity_reg",
    "lambda_scale": "scale_reg",
}
# Recipes by their old preset names.
PRESETS = {"cpu": "timing", "paper": "paper", "parity": "released"}
# Options that the recipes now decide themselves.
_GONE = ("spike", "lambda_sub")
_OF_TIMING = ("subframe_width", "window_points", "window_from", "fixed_pattern_every", "instants", "fuse",
              "recon_from", "recon_every")  # fmt: skip
_OF_PAPER = ("lambda_gs", "lambda_rec", "lambda_dssim", "flip", "multi_interval")
_OF_NETWORK = ("targets", "recon_net", "long_grouping", "crop", "lambda_joint", "short", "recon_lr", "recon_lr_final")


def upgraded(stored: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The recipe, and its values by flag name, from the contents of a ``cfg_args.json``.

    Raises:
        KeyError, AttributeError: not the contents of such a file.
    """
    parts = {name: part for name, part in stored.items() if name not in ("recipe", "preset")}
    values = {name: value for part in parts.values() for name, value in part.items()}
    if "recipe" in stored:
        return stored["recipe"], values
    values = {FLAGS.get(name, name): value for name, value in values.items()}
    recipe = PRESETS[stored["preset"]] if values["spike"] else "images"
    if recipe == "timing" and not values["lambda_sub"]:
        recipe = "paper"
    values |= {"average_decay": 0.0, "length_unit": "world", "curve_degree": 3, "pose_precondition": False}
    if recipe == "timing":
        values["retime_every"] = 0
    of_images = {*_OF_TIMING, *_OF_NETWORK, *_OF_PAPER} - {"lambda_dssim"}
    foreign = {"timing": {*_OF_PAPER}, "images": of_images}.get(recipe, {*_OF_TIMING})
    return recipe, {name: value for name, value in values.items() if name not in (*_GONE, *foreign)}
