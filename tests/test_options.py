"""Every option of every recipe changes what is learned."""

import dataclasses

import pytest
from training_runs import CASCADE, IMAGES, PAPER, SPIKEGS, SPIKENERF, TIMING, learned, same, small_training, stepped

from arguments import RECIPES

FLAGS = {
    "timing": TIMING, "paper": PAPER, "images": IMAGES, "cascade": CASCADE, "spikegs": SPIKEGS, "spikenerf": SPIKENERF,
}  # fmt: skip

# Every option that changes what is learned, with another value, in a recipe where it matters.
CHANGES = {
    "targets": ("timing", "--targets counting --no-fuse"),
    "exposure": ("timing", "--exposure 73"),
    "short": ("paper", "--short 33"),
    "subframes": ("timing", "--subframes 9"),
    "subframe_width": ("timing", "--subframe_width 21"),
    "window_points": ("timing", "--window_points 1"),
    "window_from": ("timing", "--window_from 5"),
    "fixed_pattern_every": ("timing", "--fixed_pattern_every 0"),
    "retime_from": ("timing", "--retime_from 2"),
    "retime_every": ("timing", "--retime_every 0"),
    "instants": ("timing", "--instants 7"),
    "long_grouping": ("paper", "--long_grouping strided"),
    "transforms": ("timing", "--transforms transforms_noisy.json"),
    "eval": ("timing", "--eval"),
    "llffhold": ("timing", "--eval --llffhold 2"),
    "perturb": ("timing", "--perturb 1"),
    "perturb_seed": ("timing", "--perturb 1 --perturb_seed 3"),
    "sh_degree": ("timing", "--sh_degree 1"),
    "sh_degree_interval": ("timing", "--sh_degree_interval 3"),
    "low_pass": ("timing", "--low_pass 0.2"),
    "antialiased": ("timing", "--no-antialiased"),
    "init_num_pts": ("timing", "--init_num_pts 310"),
    "init_opa": ("timing", "--init_opa 0.2"),
    "strategy": ("timing", "--strategy none"),
    "cap_max": ("timing", "--cap_max 310"),
    "densify_from_iter": ("timing", "--densify_from_iter 4"),
    "densify_until_iter": ("timing", "--densify_until_iter 3"),
    "densification_interval": ("timing", "--densification_interval 5"),
    "densify_grad_threshold": ("paper", "--densify_grad_threshold 1"),
    "densify_subframes": ("paper", "--densify_grad_threshold 2e-3 --densify_subframes last"),
    "opacity_reset_interval": ("paper", "--opacity_reset_interval 3"),
    "min_opacity": ("paper", "--min_opacity 0.099"),
    "trajectory": ("timing", "--trajectory cubic"),
    "curve_degree": ("timing", "--curve_degree 2"),
    "knot_spacing": ("timing", "--trajectory spline --knot_spacing 0.7"),
    "pose_opt": ("timing", "--no-pose_opt"),
    "pose_precondition": ("timing", "--no-pose_precondition"),
    "motion_init": ("timing", "--no-motion_init"),
    "view_spacing": ("timing", "--view_spacing 150"),
    "recon_net": ("timing", "--recon_net paper"),
    "recon_from": ("timing", "--recon_from 3"),
    "recon_every": ("timing", "--recon_every 2"),
    "fuse": ("timing", "--no-fuse"),
    "crop": ("timing", "--crop 20"),
    "lambda_gs": ("paper", "--no-gs"),
    "lambda_rec": ("paper", "--no-rec"),
    "lambda_joint": ("paper", "--no-joint"),
    "field": ("spikenerf", "--field mlp --samples 4 --rays 16"),
    "cells": ("spikenerf", "--cells 0.3"),
    "samples": ("spikenerf", "--samples 18"),
    "rays": ("spikenerf", "--rays 65"),
    "fire": ("spikenerf", "--fire hard"),
    "gamma": ("spikenerf", "--gamma 1"),
    "lambda_gain": ("spikenerf", "--lambda_gain 1e-2"),
    "lambda_tv": ("spikenerf", "--iterations 12 --lambda_tv 1"),
    "values_lr": ("spikenerf", "--values_lr 0.2"),
    "values_lr_final": ("spikenerf", "--values_lr_final 0.05"),
    "nets_lr": ("spikenerf", "--field mlp --samples 4 --rays 16 --nets_lr 1e-3"),
    "gain_lr": ("spikenerf", "--gain_lr 1e-2"),
    "image_method": ("cascade", "--image_method tfi"),
    "bsn_width": ("spikegs", "--bsn_width 3"),
    "bsn_steps": ("spikegs", "--bsn_steps 2"),
    "lambda_inst": ("spikegs", "--lambda_inst 0.5"),
    "lambda_exp": ("spikegs", "--no-exp"),
    "lambda_dssim": ("images", "--no-dssim"),
    "multi_interval": ("paper", "--no-multi_interval"),
    "opacity_reg": ("timing", "--opacity_reg 0.1"),
    "scale_reg": ("timing", "--scale_reg 0.1"),
    "iterations": ("timing", "--iterations 60"),
    "means_lr": ("timing", "--means_lr 3e-3"),
    "means_lr_final": ("timing", "--means_lr_final 1e-3"),
    "means_unit": ("timing", "--means_unit extent"),
    "sh0_lr": ("timing", "--sh0_lr 1e-3"),
    "shN_lr": ("timing", "--shN_lr 1e-3"),
    "opacities_lr": ("timing", "--opacities_lr 1e-3"),
    "scales_lr": ("timing", "--scales_lr 3e-3"),
    "quats_lr": ("timing", "--quats_lr 1e-3"),
    "pose_opt_lr": ("timing", "--pose_opt_lr 2e-3"),
    "pose_opt_lr_final": ("timing", "--pose_opt_lr_final 1e-3"),
    "pose_every": ("timing", "--pose_every 3"),
    "length_unit": ("timing", "--length_unit world"),
    "average_decay": ("timing", "--average_decay 0"),
    "average_from": ("timing", "--average_from 6"),
    "recon_lr": ("timing", "--recon_lr 5e-3"),
    "recon_lr_final": ("timing", "--recon_lr_final 1e-3"),
    "seed": ("timing", "--seed 1"),
    "shards": ("timing", "--shards 2"),
}
# Options whose tests stand elsewhere: folders, what is printed or kept, and three that need a special start.
ELSEWHERE = {
    "source_path", "model_path", "rasterizer", "device", "save_iterations", "checkpoint_every", "resume", "quiet",
    "image_folder", "resolution", "strict", "log_every", "json_log", "viewer", "viewer_host", "viewer_port",
    "tensorboard", "flip", "lambda_scale_ratio", "threads", "targets_memory", "bsn_weights", "spk2imgnet_weights",
    "start_from",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(scene_folder, tmp_path_factory):
    """What is learned with each of the sets of flags."""
    return {
        name: learned(stepped(small_training(scene_folder, tmp_path_factory.mktemp(name), *flags)))
        for name, flags in FLAGS.items()
    }


def test_no_option_is_forgotten():
    options = {
        item.name for kind in RECIPES.values() for part in kind.parts().values() for item in dataclasses.fields(part)
    }
    assert options == CHANGES.keys() | ELSEWHERE


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_what_is_learned(name, base, scene_folder, tmp_path):
    recipe, flags = CHANGES[name]
    t = stepped(small_training(scene_folder, tmp_path, *FLAGS[recipe], *flags.split()))
    assert not same(learned(t), base[recipe])


def test_the_same_flags_learn_the_same(base, scene_folder, tmp_path):
    assert same(learned(stepped(small_training(scene_folder, tmp_path, *TIMING))), base["timing"])
