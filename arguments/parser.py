"""The command line of ``train.py``, and the flags that several commands share, built from the options' fields."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from arguments.command_line import CommandLine, underscored
from arguments.options import Options, choices_of
from arguments.parts import LARGEST_SEED, QUIET, RunOptions, SceneOptions
from arguments.renamed import FLAGS, PRESETS
from arguments.settings import RECIPES, ImageSettings, PhotoSettings, Settings, TimingSettings, load_settings
from utils.telling import say

SHORT = {"source_path": "-s", "model_path": "-m", "image_folder": "-i", "resolution": "-r"}
_MOVED = ("source_path", "model_path")


def add_options(
    parser: argparse.ArgumentParser, part: type[Options], values: dict[str, Any], all_flags: bool = True
) -> None:
    """Add the flags of ``part``; the help text shows ``values``, for common flags only unless ``all_flags``.

    Flags that are not given leave no attribute in the namespace.
    """
    group = parser.add_argument_group((part.__doc__ or "").strip())
    hints = get_type_hints(part)
    for item in dataclasses.fields(part):
        shown = all_flags or item.metadata["common"]
        text = _help(item, values.get(item.name)) if shown else argparse.SUPPRESS
        names = [SHORT[item.name]] if item.name in SHORT else []
        names += [f"--{name}" for name in (item.name, *item.metadata["names"])]
        _add(group, item.name, names, hints[item.name], text)


def _help(item: dataclasses.Field[Any], value: Any) -> str:
    text = item.metadata["help"].replace("%", "%%")
    if value is None and item.metadata["by_size"]:
        return f"{text} (default: by the scene's size)"
    value = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    return text if value in ("", [], None) else f"{text} (default: {value})"


def _add(group: argparse._ActionsContainer, name: str, names: list[str], hint: Any, text: str) -> None:
    options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
    if hint is bool:
        group.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
    elif choices_of(hint):
        group.add_argument(*names, choices=choices_of(hint), **options)
    elif get_origin(hint) is list:
        group.add_argument(*names, nargs="*", type=get_args(hint)[0], metavar="N", **options)
    else:
        group.add_argument(*names, type=hint, metavar=hint.__name__.upper(), **options)
    if name.startswith("lambda_"):
        short = name.removeprefix("lambda_")
        hidden = argparse.SUPPRESS  # documented by --lambda_<name>
        group.add_argument(f"--no-{short}", dest=name, action="store_const", const=0.0, default=hidden, help=hidden)


_ALIASES = {
    name
    for kind in RECIPES.values()
    for part in kind.parts().values()
    for item in dataclasses.fields(part)
    for name in item.metadata["names"]
}


def _other_recipes(recipe: str, flag: str) -> str:
    """Where a flag belongs that ``recipe`` does not have; empty if no recipe has it."""
    is_off = flag.startswith("--no-")
    name = flag.removeprefix("--no-" if is_off else "--")
    names = {name, f"lambda_{name}"} if is_off else {name}
    having = [
        other
        for other, kind in RECIPES.items()
        for part in kind.parts().values()
        for item in dataclasses.fields(part)
        if names & {item.name, *item.metadata["names"]}
    ]
    listed = " or ".join([", ".join(having[:-1])] * (len(having) > 1) + having[-1:])
    return f"it belongs to --recipe {listed}, and this run has --recipe {recipe}" if having else ""


def training_parser(settings: Settings, all_flags: bool = True) -> argparse.ArgumentParser:
    """The command line of ``train.py`` with the recipe of ``settings``; its help shows their values."""
    parser = CommandLine(
        prog="train.py", add_help=False, remark=partial(_other_recipes, settings.recipe),
        description="Learn Gaussians, camera trajectories and Recon-Net from spike streams.",
        epilog=None if all_flags else "--help-all shows every flag of the recipe; docs/flags.md lists all flags.",
    )  # fmt: skip
    group = parser.add_argument_group("Method")
    group.add_argument("-h", "--help", action="store_true", help="show the common flags, with the values of this run")
    group.add_argument("--help-all", action="store_true", help="show every flag")
    kinds = "; ".join(f"{name}: {kind.summary}" for name, kind in RECIPES.items())
    group.add_argument("--recipe", choices=list(RECIPES), default=argparse.SUPPRESS, help=f"method ({kinds})")
    group.add_argument(
        "--images", action="store_true", help="the same as --recipe images"
    )
    group.add_argument("--spike", action="store_true", help=argparse.SUPPRESS)  # accepted; streams are used anyway
    for part in settings.parts().values():
        add_options(parser, part, settings.values(), all_flags)
    return parser


def current_names(argv: Iterable[str]) -> list[str]:
    """The command line with underscores in all flags and with flags of version 0.1.0 renamed.

    Each renamed flag is reported in a note on stderr.
    """
    words, notes = underscored(argv), []
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--preset":
            value = value if equals else (words[i + 1] if i + 1 < len(words) else "")
            recipe = PRESETS.get(value, value)
            if recipe == "auto":
                recipe = TimingSettings.recipe
            words[i : i + (1 if equals else 2)] = ["--recipe", recipe]
            notes.append(f"--preset {value} is now --recipe {recipe}")
            continue
        if not name.startswith("--"):
            continue
        off = name.startswith("--no-")
        plain = name.removeprefix("--no-" if off else "--")
        new = FLAGS.get(plain) or (FLAGS.get(f"lambda_{plain}") if off else None)
        if new is None:
            continue
        renamed = f"--{'no-' if off else ''}{new}"
        if off and plain not in FLAGS:  # --no-opacity stood for --lambda_opacity 0
            renamed, equals, value = f"--{new}", "=", "0"
        if plain not in _ALIASES:
            notes.append(f"{name} is now {renamed}")
        words[i] = renamed + equals + value
    for note in notes:
        say(f"note: {note}; the old name goes away in the next version", to=sys.stderr)
    return words


def scene_options(argv: Sequence[str]) -> SceneOptions:
    """The scene that a command line of ``train.py`` names; other flags are left to ``parse_training``.

    Raises:
        ValueError: no scene, or a results folder that contains the scene.
    """
    parser = CommandLine(prog="train.py", add_help=False)
    add_options(parser, SceneOptions, {})
    given, _ = parser.parse_known_args(argv)
    if not getattr(given, "source_path", ""):
        raise ValueError("no scene given: say which folder with -s, for example -s data/tanabata")
    source = Path(given.source_path)
    given.model_path = getattr(given, "model_path", "") or str(Path("output") / source.resolve().name)
    model = Path(given.model_path).resolve()
    if model == source.resolve() or model in source.resolve().parents:
        raise ValueError(
            f"-m {given.model_path} holds the scene {given.source_path}, which would be moved away with an earlier "
            "run's results: expected a folder that does not contain the scene"
        )
    return SceneOptions(**vars(given))


def given_recipe(argv: Sequence[str]) -> str:
    """The recipe that a command line names, or nothing.

    Raises:
        ValueError: --images and another recipe.
    """
    parser = CommandLine(prog="train.py", add_help=False)
    parser.add_argument("--recipe", choices=list(RECIPES), default="")
    parser.add_argument("--images", action="store_true")
    given, _ = parser.parse_known_args(argv)
    if given.images and given.recipe not in ("", ImageSettings.recipe):
        raise ValueError(f"--images is --recipe {ImageSettings.recipe}, but --recipe {given.recipe} is given")
    return ImageSettings.recipe if given.images else str(given.recipe)


def wants_images(argv: Sequence[str]) -> bool:
    """Whether a command line names a recipe that learns from images, whether or not there are spikes."""
    recipe = given_recipe(argv)
    return bool(recipe) and not RECIPES[recipe].from_spikes


def chosen_recipe(argv: Sequence[str], has_spikes: bool) -> str:
    """The recipe of a run: streams that are there are learned from, unless the command line names another recipe."""
    return given_recipe(argv) or (TimingSettings.recipe if has_spikes else PhotoSettings.recipe)


def parse_training(argv: Sequence[str], has_spikes: bool = True) -> Settings:
    """The settings that a command line of ``train.py`` asks for; unknown flags exit the program.

    Args:
        argv: flags under their current names (``current_names``).
        has_spikes: whether the scene has spike streams.
    """
    recipe = chosen_recipe(argv, has_spikes)
    given = vars(training_parser(RECIPES[recipe].of()).parse_args(argv))
    scene = dataclasses.asdict(scene_options(argv))
    return RECIPES[recipe].of(**(_flags(given) | scene))


def _flags(given: dict[str, Any]) -> dict[str, Any]:
    """The given options without those that select the recipe."""
    return {name: value for name, value in given.items() if name not in _CHOICES}


_CHOICES = ("help", "help_all", "recipe", "images", "spike")


def resumed_settings(argv: Sequence[str]) -> Settings:
    """The stored settings of the model that a command line resumes; run flags may differ, except the seed.

    Raises:
        ValueError: any other flag differs from the stored value.
    """
    scene = scene_options(argv)
    stored = load_settings(scene.model_path)
    recipe = given_recipe(argv)
    if recipe and recipe != stored.recipe:
        raise ValueError(f"--resume continues with the stored --recipe {stored.recipe}, not --recipe {recipe}")
    given = _flags(vars(training_parser(stored).parse_args(argv)))
    free = {item.name for item in dataclasses.fields(RunOptions)} - {"seed"} | {*_MOVED, "start_from"}
    before = stored.values()
    for name, value in given.items():
        if name not in free and value != before[name]:
            raise ValueError(
                f"--resume continues with the stored {as_flag(name, before[name])}, not {as_flag(name, value)}"
            )
    return stored.replaced(**(given | {name: getattr(scene, name) for name in _MOVED}))


def as_flag(name: str, value: Any) -> str:
    """An option and its value as written on the command line."""
    return f"--{name} {value}" if not isinstance(value, bool) else f"--{name}" if value else f"--no-{name}"


def asks_for_help(argv: Sequence[str]) -> str:
    """``--help-all``, ``--help`` or ``-h``, whichever is given; empty if none is."""
    return next((flag for flag in ("--help-all", "--help", "-h") if flag in argv), "")


def add_model_arguments(parser: argparse.ArgumentParser, is_drawn: bool = True) -> None:
    """Add the flags shared by commands that read a trained model; ``is_drawn`` adds those for rendering it."""
    parser.add_argument("-m", "--model_path", default="", metavar="STR", help="folder of the trained model")
    add_source_argument(parser)
    shared = ("rasterizer", "device", "quiet") if is_drawn else ("quiet",)
    run, hints = RunOptions(), get_type_hints(RunOptions)
    for item in dataclasses.fields(RunOptions):
        if item.name in shared:
            value = getattr(run, item.name)
            _add(parser, item.name, [f"--{item.name}"], hints[item.name], _help(item, value))
            parser.set_defaults(**{item.name: value})


def add_quiet_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag that hides everything but errors (``utils.telling``)."""
    parser.add_argument("--quiet", action="store_true", help=QUIET)


def seed(word: str) -> int:
    """A random seed as written on a command line, for ``type``: a number that all generators take."""
    value = int(word)
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be at least 0 and at most {LARGEST_SEED}, not {value}")
    return value


def add_source_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag for a scene that was moved since a model was trained on it."""
    parser.add_argument(
        "-s", "--source_path", default="", metavar="STR", help="folder of the scene (default: where training read it)"
    )
