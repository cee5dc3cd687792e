"""Lists every flag of train.py as Markdown."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, get_origin, get_type_hints

from arguments import RECIPES
from arguments.options import Options, choices_of
from arguments.parser import SHORT
from arguments.renamed import FLAGS, PRESETS
from arguments.sizing import SCHEDULE


def _values(hint: Any) -> str:
    if choices_of(hint):
        return ", ".join(f"`{value}`" for value in choices_of(hint))
    if get_origin(hint) is list:
        return "whole numbers"
    return {bool: "on or off", int: "whole number", float: "number", str: "text"}[hint]


def _flag(item: dataclasses.Field[Any], hint: Any) -> str:
    names = [short for name, short in SHORT.items() if name == item.name]
    names += [f"--{item.name}"] + ([f"--no-{item.name}"] if hint is bool else [])
    if item.name.startswith("lambda_"):
        names.append(f"--no-{item.name.removeprefix('lambda_')}")
    names += [f"--{name}" for name in item.metadata["names"]]
    return ", ".join(f"`{name}`" for name in names)


def _shown(value: Any) -> str:
    if value is None:
        return "by size"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in ("", []) else f"{value}"


def _parts() -> dict[str, dict[str, tuple[dataclasses.Field[Any], Any]]]:
    """Options of all recipes with the types of their values, by title of their part."""
    found: dict[str, dict[str, tuple[dataclasses.Field[Any], Any]]] = {}
    kinds: list[type[Options]] = [part for kind in RECIPES.values() for part in kind.parts().values()]
    for part in kinds:
        hints = get_type_hints(part)
        options = found.setdefault((part.__doc__ or "").strip(), {})
        for item in dataclasses.fields(part):
            options.setdefault(item.name, (item, hints[item.name]))
    return found


def flags_page() -> str:
    """The page, made from the help of the options."""
    defaults = {name: kind.of().values() for name, kind in RECIPES.items()}
    shares = ", ".join(f"`{name}` {share:.2f}" for name, share in SCHEDULE.items())
    lines = [
        "# Every flag of train.py",
        "",
        "Made by `python -m arguments > docs/flags.md`. A recipe is a method; it has the flags whose column shows a",
        "default. `python train.py --help-all` shows the flags of one recipe with the values that a run would use.",
        "Underscores may be written as hyphens.",
        "",
        *(f"- `--recipe {name}`: {kind.summary}" for name, kind in RECIPES.items()),
        "",
        "`by size`: follows the size of the scene, see [Time and size](time-and-size.md). The schedule's parts are",
        f"shares of the steps: {shares}.",
    ]
    for title, options in _parts().items():
        lines += ["", f"## {title}", "", "| flag | | values | " + " | ".join(RECIPES) + " |"]
        lines.append("| --- | --- | --- |" + " --- |" * len(RECIPES))
        for name, (item, hint) in options.items():
            columns = [_shown(values[name]) if name in values else "-" for values in defaults.values()]
            cells = [_flag(item, hint), item.metadata["help"], _values(hint), *columns]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    old = ", ".join(f"`--{before}` (`--{now}`)" for before, now in FLAGS.items())
    presets = ", ".join(f"`{before}` (`{now}`)" for before, now in PRESETS.items())
    lines += ["", "## Old names", "", f"Accepted for one more version, with a note: {old}; `--preset`: {presets}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    sys.stdout.write(flags_page())
    return 0
