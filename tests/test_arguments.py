"""The command line and the settings: names, defaults, old names, files, and what is refused."""

import dataclasses
import json

import pytest
from training_runs import TIMING

from arguments import RECIPES, ImageSettings, PaperSettings, ReleasedSettings, TimingSettings, load_settings
from arguments.parser import (
    as_flag,
    chosen_recipe,
    current_names,
    parse_training,
    resumed_settings,
    training_parser,
)
from arguments.sizing import SCHEDULE, size_for
from evaluation.methods import METHODS

# The flags of train.py by recipe.  A change here is a change of the command line that users have: note it in
# CHANGELOG.md, and keep a removed name for one version in arguments/renamed.py.
SHARED = """
antialiased average_decay average_from cap_max checkpoint_every curve_degree densification_interval densify_from_iter
densify_grad_threshold densify_subframes
densify_until_iter device eval exposure init_num_pts init_opa iterations json_log knot_spacing lambda_scale_ratio
length_unit llffhold log_every low_pass means_lr means_lr_final means_unit min_opacity model_path motion_init
opacities_lr pose_precondition
opacity_reg opacity_reset_interval pose_every pose_opt pose_opt_lr pose_opt_lr_final quats_lr quiet rasterizer resume
save_iterations scale_reg scales_lr seed sh0_lr sh_degree sh_degree_interval shN_lr source_path start_from strategy
subframes tensorboard trajectory transforms view_spacing viewer viewer_host viewer_port perturb perturb_seed
image_folder resolution strict shards targets_memory threads
""".split()
NETWORK = "crop lambda_joint long_grouping recon_lr recon_lr_final recon_net short targets".split()
BLIND_SPOT = "bsn_width bsn_steps bsn_weights".split()
FROZEN = {
    "timing": [*SHARED, *NETWORK, *"""
        fixed_pattern_every fuse instants recon_every recon_from retime_every retime_from subframe_width window_from
        window_points
    """.split()],
    "paper": [*SHARED, *NETWORK, *"flip lambda_dssim lambda_gs lambda_rec multi_interval".split()],
    "images": [*SHARED, "lambda_dssim"],
    "cascade": [*SHARED, *BLIND_SPOT, "lambda_dssim", "image_method", "spk2imgnet_weights"],
    "spikegs": [*SHARED, *BLIND_SPOT, "lambda_dssim", "lambda_inst", "lambda_exp"],
    "spikenerf": """
        cells checkpoint_every device eval exposure field fire gain_lr gamma iterations json_log lambda_gain lambda_tv
        llffhold log_every model_path nets_lr perturb perturb_seed quiet rasterizer rays resume samples save_iterations
        seed source_path subframes tensorboard transforms values_lr values_lr_final viewer viewer_host viewer_port
        image_folder resolution strict shards targets_memory threads
    """.split(),
}  # fmt: skip
FROZEN["released"] = FROZEN["paper"]
FROZEN["photos"] = FROZEN["images"]
ALIASES = (
    "antialiasing max_steps position_lr_init position_lr_final feature_lr opacity_lr scaling_lr rotation_lr"
).split()


def parsed(*flags: str):
    return parse_training(current_names(["-s", "data/a", *flags]))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_list_of_flags_is_frozen(recipe):
    assert sorted(RECIPES[recipe].of().values()) == sorted(FROZEN[recipe])
    names = {name for part in RECIPES[recipe].parts().values() for item in dataclasses.fields(part)
             for name in item.metadata["names"]}  # fmt: skip
    assert names == ({"max_steps"} if recipe == "spikenerf" else set(ALIASES))


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_shows_the_common_flags_with_their_values(recipe):
    settings = RECIPES[recipe].of(seed=7).for_scene(16, 200, 124)
    few, many = (training_parser(settings, all_flags).format_help() for all_flags in (False, True))

    def shown(text: str) -> list[str]:
        return [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")]

    assert len(shown(few)) <= 25 < len(shown(many))
    assert "(default: 7)" in few and f"(default: {settings.rates.iterations})" in few
    assert "-s" in shown(few) and "-m" in shown(few) and "--help-all" in few
    assert "(default: None)" not in many and "by the scene's size" not in many
    assert "log_every" in many and "log_every" not in few


def test_every_option_says_what_it_is():
    for kind in RECIPES.values():
        for part in kind.parts().values():
            for item in dataclasses.fields(part):
                text = item.metadata["help"]
                assert len(text) > 10 and not text.endswith("."), item.name


def test_values_are_those_of_the_recipe_then_the_flags():
    timing = parsed("--trajectory", "spline", "--no-fuse", "--save_iterations", "2", "4", "--lambda-joint=0.5")
    assert isinstance(timing, TimingSettings) and timing.densification.strategy == "mcmc"
    assert timing.motion.trajectory == "spline" and not timing.network.fuse and timing.run.save_iterations == [2, 4]
    assert timing.network.lambda_joint == 0.5 and timing.network.recon_net == "slim"
    paper = parsed("--recipe", "paper", "--no-rec")
    assert isinstance(paper, PaperSettings) and paper.losses.lambda_rec == 0 and paper.rates.iterations == 30000
    released = parsed("--recipe", "released")
    assert isinstance(released, ReleasedSettings) and released.network.long_grouping == "strided"
    assert not released.motion.motion_init and released.densification.densify_subframes == "last"
    assert isinstance(parsed("--images"), ImageSettings)
    assert parsed().scene.model_path == "output/a"
    inria = parsed("--position_lr_init", "1", "--scaling_lr", "2", "--rotation_lr", "3", "--opacity_lr", "4")
    rates = inria.rates
    assert (rates.means_lr, rates.scales_lr, rates.quats_lr, rates.opacities_lr) == (1, 2, 3, 4)


def test_streams_are_learned_from_unless_images_are_asked_for():
    assert chosen_recipe([], has_spikes=True) == "timing" and chosen_recipe(["--spike"], has_spikes=True) == "timing"
    assert chosen_recipe([], has_spikes=False) == "photos" and chosen_recipe(["--images"], has_spikes=True) == "images"
    assert chosen_recipe(["--recipe", "paper"], has_spikes=False) == "paper"  # which says what it misses
    with pytest.raises(ValueError, match="--images is --recipe images, but --recipe paper is given"):
        chosen_recipe(["--images", "--recipe", "paper"], has_spikes=True)
    assert parse_training(["-s", "a", "--spike"]) == parse_training(["-s", "a"])


def test_names_of_version_0_1_are_accepted_with_a_note(capsys):
    old = "--preset paper --cap 9 --sh-every 7 --no-optimise_poses --no-opacity --densify_from=3 --pose_lr 2 --no-rec"
    words = current_names(old.split())
    assert words == [
        "--recipe", "paper", "--cap_max", "9", "--sh_degree_interval", "7", "--no-pose_opt", "--opacity_reg=0",
        "--densify_from_iter=3", "--pose_opt_lr", "2", "--no-rec",
    ]  # fmt: skip
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 7 and all(note.startswith("note: --") for note in notes)
    assert "--preset paper is now --recipe paper" in notes[0] and "--cap is now --cap_max" in notes[1]
    assert current_names(["--preset=cpu"]) == current_names(["--preset", "auto"]) == ["--recipe", "timing"]
    assert current_names(["--preset", "parity"]) == ["--recipe", "released"]
    capsys.readouterr()
    assert current_names(["-s", "a-b", "--help-all", "--quiet"]) == ["-s", "a-b", "--help-all", "--quiet"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--iterations 0", "--iterations must be at least 1"),
        ("--means_lr nan", "--means_lr must be a finite number"),
        ("--pose_opt_lr -1", "--pose_opt_lr must be at least 0, not -1"),
        ("--sh_degree 4", "--sh_degree must be at least 0 and at most 3, not 4"),
        ("--cap_max 0", "--strategy mcmc needs a number of Gaussians: give --cap_max"),
        ("--subframe_width 8", "--subframe_width must be odd"),
        ("--window_points 4", "--window_points must be odd"),
        ("--targets counting", "--fuse "),
        ("--log_every 0", "--log_every must be at least 1"),
        ("--min_opacity 0", "--min_opacity must be more than 0 and less than 0.5"),
        ("--min_opacity 0.5", "--min_opacity must be more than 0 and less than 0.5"),
        ("--init_opa 0", "--init_opa must be more than 0 and less than 1"),
        ("--init_opa 1", "--init_opa must be more than 0 and less than 1"),
        ("--knot_spacing 0", "--knot_spacing must be more than 0"),
        ("--means_lr_final 0", "--means_lr_final must be more than 0"),
        ("--pose_opt_lr_final 0", "--pose_opt_lr_final must be more than 0"),
        ("--recon_lr_final 0", "--recon_lr_final must be more than 0"),
        ("--instants 0", "--instants must be at least 1"),
        ("--seed -1", "--seed must be at least 0 and at most 9223372036854775807, not -1"),
        ("--perturb_seed 9223372036854775808", "--perturb_seed must be at least 0 and at most 9223372036854775807"),
        ("--viewer_port 70000", "--viewer_port must be at least 1 and at most 65535"),
        ("--recipe paper --lambda_dssim 2", "--lambda_dssim must be at least 0 and at most 1"),
        ("-m data", "-m data holds the scene data/a"),
        ("-m data/a/../a", "holds the scene data/a"),
    ],
)
def test_impossible_values_are_refused(flags, words):
    with pytest.raises(ValueError) as refused:
        parsed(*flags.split())
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_nothing_is_fused_without_a_network():
    assert parsed("--targets", "counting", "--no-joint").target_mode == "counting"


def test_a_scene_is_needed():
    with pytest.raises(ValueError, match="no scene given: say which folder with -s"):
        parse_training(["--quiet"])


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--recipe paper --fuse", "--fuse; it belongs to --recipe timing, and this run has --recipe paper"),
        ("--instants 6 --recipe paper", "--instants; it belongs to --recipe timing, and this run has --recipe paper"),
        ("--images --crop=9", "--crop; it belongs to --recipe timing, paper or released, and this run has --recipe im"),
        ("--recipe spikenerf --no-joint", "--no-joint; it belongs to --recipe timing, paper or released, and"),
        ("--recipe cascade --joint", "--joint; -h shows its flags"),  # only its negative is a flag
        ("--iteration 9", "--iteration; did you mean --iterations?"),
    ],
)
def test_a_recipe_has_no_flags_that_it_does_not_read(flags, why, capsys):
    with pytest.raises(SystemExit):
        parsed(*flags.split())
    said = capsys.readouterr().err
    assert said.startswith("error: train.py has no flag " + why) and said.count("\n") == 1


@pytest.mark.parametrize("method", METHODS)
def test_the_flags_of_every_row_of_the_evaluation_are_current(method, capsys):
    parsed(*METHODS[method].flags, "--seed", "3")
    assert not capsys.readouterr().err


def test_flags_are_written_as_they_are_read():
    for kind in RECIPES.values():
        settings = kind.of(source_path="a", model_path="b", seed=4).for_scene(12, 64, 48)
        words = [word for name, value in settings.values().items() if value not in ("", [])
                 for word in as_flag(name, value).split()]  # fmt: skip
        assert parse_training(["--recipe", kind.recipe, *words]) == settings


# ---- the size of the scene -----------------------------------------------------------------------------------


def test_the_scene_s_size_sets_what_is_not_given():
    demo = TimingSettings.of().for_scene(16, 200, 124)
    assert (demo.rates.iterations, demo.densification.cap_max, demo.gaussians.init_num_pts) == (3600, 60000, 20000)
    assert demo.densification.densify_until_iter == 2900 and demo.network.recon_from == 2200
    given = TimingSettings.of(iterations=900, cap_max=5000, recon_from=7).for_scene(64, 600, 400)
    assert (given.rates.iterations, given.densification.cap_max, given.network.recon_from) == (900, 5000, 7)
    # The schedule keeps its shape.
    assert given.targets.window_from == 450 and given.densification.densify_until_iter == 725
    assert demo.for_scene(99, 999, 999) == demo  # nothing is left to be set
    assert PaperSettings.of().for_scene(99, 9, 9).rates.iterations == 30000


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_is_not_saved_after_the_last_iteration(recipe):
    RECIPES[recipe].of(iterations=900, save_iterations=[1, 900]).for_scene(16, 200, 124)
    with pytest.raises(ValueError, match=r"^--save_iterations 901: training ends after 900 iterations$"):
        RECIPES[recipe].of(iterations=900, save_iterations=[1, 901, 30000]).for_scene(16, 200, 124)
    with pytest.raises(ValueError, match=r"^--save_iterations 30001: training ends after 3600 iterations$"):
        TimingSettings.of(save_iterations=[30001]).for_scene(16, 200, 124)


def test_larger_scenes_get_more():
    small, views, pixels = size_for(16, 200, 124), size_for(64, 200, 124), size_for(16, 600, 400)
    assert views.iterations > small.iterations and pixels.cap_max > small.cap_max
    assert size_for(1, 8, 8).iterations >= 2000 and size_for(10**6, 200, 124).iterations <= 30_000
    assert all(0 < share < 1 for share in SCHEDULE.values())


# ---- files, and going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_survive_their_file(recipe, tmp_path):
    settings = RECIPES[recipe].of(source_path="x", model_path=str(tmp_path), seed=3).for_scene(5, 48, 32)
    settings.save(tmp_path)
    assert load_settings(tmp_path) == settings and type(load_settings(tmp_path)) is RECIPES[recipe]


@pytest.mark.parametrize(
    "text",
    [
        '{"recipe": "timing"', "[1]", '{"recipe": "none"}', '{"preset": "cpu"}', "[" * 100_000,
        '{"recipe": "timing", "run": {"seed": -1}}', '{"recipe": "timing", "run": {"sed": 1}}',
        '{"recipe": "timing", "run": 5}', '{"recipe": ["timing"]}', '{"recipe": "timing", "run": {"seed": "1"}}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "cfg_args.json").write_text(text)
    with pytest.raises(ValueError, match=r"cfg_args.json: not a configuration of this version \([^\n]+\)$"):
        load_settings(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cfg_args.json: not found; is .* the folder of a trained model\?"):
        load_settings(tmp_path)


OLD = {
    "data": {
        "source_path": "data/demo", "model_path": "output/demo", "transforms": "transforms.json", "spike": True,
        "eval": False, "llffhold": 8, "targets": "timing", "exposure": 97, "short": 41, "subframes": 13,
        "subframe_width": 9, "window_points": 3, "window_from": 1800, "fixed_pattern_every": 1100,
        "long_grouping": "adjacent",
    },
    "scene": {
        "sh_degree": 3, "sh_every": 900, "low_pass": 0.1, "antialiased": True, "init_points": 20000,
        "init_opacity": 0.1, "strategy": "mcmc", "cap": 60000, "densify_from": 100, "densify_until": 2900,
        "densify_every": 100, "densify_grad": 0.0004, "densify_subframes": "all", "opacity_reset_every": 3000,
        "min_opacity": 0.005,
    },
    "motion": {
        "trajectory": "bezier", "knot_spacing": 0.5, "optimise_poses": True, "motion_init": True, "view_spacing": 0.0,
    },
    "recon": {"recon_net": "slim", "recon_from": 2200, "recon_every": 1, "fuse": True, "crop": 96},
    "losses": {
        "lambda_gs": 0.0, "lambda_rec": 0.0, "lambda_joint": 0.2, "lambda_sub": 1.0, "lambda_dssim": 0.2, "flip": True,
        "multi_interval": True, "lambda_scale_ratio": 0.1, "lambda_opacity": 0.0, "lambda_scale": 0.0,
    },
    "optimisation": {
        "iterations": 3600, "instants": 6, "means_lr": 0.002, "means_lr_final": 6e-05, "means_unit": "depth",
        "sh0_lr": 0.0025, "shN_lr": 0.000125, "opacity_lr": 0.05, "scale_lr": 0.02, "rotation_lr": 0.003,
        "pose_lr": 0.001, "pose_lr_final": 3e-05, "pose_every": 1, "recon_lr": 0.001, "recon_lr_final": 0.0001,
    },
    "run": {
        "rasterizer": "auto", "device": "cpu", "seed": 0, "save_iterations": [], "checkpoint_every": 1000,
        "resume": False, "log_every": 50, "viewer": False, "viewer_host": "127.0.0.1", "viewer_port": 8080,
        "quiet": False, "tensorboard": False,
        "json_log": False,
    },
    "preset": "cpu",
}  # fmt: skip


def test_a_model_of_version_0_1_is_read(tmp_path):
    file = tmp_path / "cfg_args.json"
    file.write_text(json.dumps(OLD))
    expected = TimingSettings.of(source_path="data/demo", model_path="output/demo", device="cpu")
    # That version neither shaped the spikes' intervals nor averaged the last steps, and its curves were cubic.
    without = {"retime_every": 0, "retime_from": None, "average_decay": 0.0, "average_from": None}
    without |= {"length_unit": "world", "curve_degree": 3, "pose_precondition": False}
    without |= {"pose_opt_lr": 1e-3, "pose_opt_lr_final": 3e-5}
    assert load_settings(tmp_path) == expected.for_scene(16, 200, 124).replaced(**without)
    file.write_text(json.dumps(OLD | {"data": OLD["data"] | {"spike": False}}))
    assert isinstance(load_settings(tmp_path), ImageSettings)
    paper = {"losses": OLD["losses"] | {"lambda_sub": 0.0, "lambda_gs": 1.0}, "preset": "paper"}
    file.write_text(json.dumps(OLD | paper))
    assert isinstance(load_settings(tmp_path), PaperSettings) and load_settings(tmp_path).losses.lambda_gs == 1
    file.write_text(json.dumps(OLD | paper | {"preset": "parity"}))
    assert isinstance(load_settings(tmp_path), ReleasedSettings)


def test_resuming_keeps_what_was_learned_with(tmp_path):
    stored = parsed(*TIMING, "--seed", "5", "--checkpoint_every", "7", "-m", str(tmp_path))
    stored.save(tmp_path)
    moved = tmp_path.rename(tmp_path.with_name("moved"))

    def again(*flags: str):
        return resumed_settings(current_names(["-s", "elsewhere", "-m", str(moved), "--resume", *flags]))

    settings = again("--spike", *TIMING, "--no-quiet")  # the same flags again, and one that does not matter
    assert (settings.scene.source_path, settings.scene.model_path) == ("elsewhere", str(moved))
    assert settings.run.seed == 5 and not settings.run.quiet and settings.densification.cap_max == 330
    assert settings.run.checkpoint_every == 7 and again("--checkpoint_every", "8").run.checkpoint_every == 8
    for flags, words in {
        "--recipe=paper": "--recipe timing, not --recipe paper",
        "--iterations 9": "--iterations 6, not --iterations 9",
        "--no-fuse": "--fuse, not --no-fuse",
        "--no-joint": "--lambda_joint 0.2, not --lambda_joint 0.0",
        "--seed 6": "--seed 5, not --seed 6",
        "--recipe paper": "--recipe timing, not --recipe paper",
        "--images": "--recipe timing, not --recipe images",
    }.items():
        with pytest.raises(ValueError, match=f"--resume continues with the stored {words}"):
            again(*flags.split())
    with pytest.raises(ValueError, match="--log_every must be at least 1"):
        again("--log_every", "0")
