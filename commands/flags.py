"""Every flag of train.py as Markdown."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

from arguments import GROUPS, PRESETS, WITHOUT_SPIKES, _field_docs, as_flag


def _values(hint: Any) -> str:
    if hint is bool:
        return "on or off"
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is list:
        return "whole numbers"
    return {int: "whole number", float: "number", str: "text"}[hint]


def _flag(name: str, hint: Any) -> str:
    flag = f"`--{name}`"
    if hint is bool:
        flag += f", `--no-{name}`"
    if name.startswith("lambda_"):
        flag += f", `--no-{name.removeprefix('lambda_').replace('_', '-')}`"
    return flag


def _changes(changes: dict[str, Any]) -> str:
    return " ".join(f"`{as_flag(name, value)}`" for name, value in changes.items())


def flags_page() -> str:
    """The page, from the configuration's own documentation."""
    lines = [
        "# Every flag of train.py",
        "",
        "Made by `python -m arguments > docs/flags.md`. Underscores may be written as hyphens. Defaults are those of",
        "`--preset paper`; flags on the command line win over the preset's. `--preset auto` is `paper` on CUDA, else",
        "`cpu`.",
    ]
    for group in GROUPS.values():
        hints, docs = get_type_hints(group), _field_docs(group)
        lines += ["", f"## {(group.__doc__ or '').strip()}", ""]
        lines += ["| flag | | values | default |", "| --- | --- | --- | --- |"]
        for item in dataclasses.fields(group):
            default = item.default_factory() if callable(item.default_factory) else item.default  # type: ignore[misc]
            if isinstance(default, bool):
                default = "on" if default else "off"
            shown = "" if default in ("", []) else f"{default}"
            cells = (_flag(item.name, hints[item.name]), docs[item.name], _values(hints[item.name]), shown)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Presets", ""]
    for name, changes in PRESETS.items():
        lines.append(f"- `--preset {name}`: {_changes(changes) or 'the defaults above'}")
    lines.append(f"- without `--spike`, every preset: {_changes(WITHOUT_SPIKES)}")
    return "\n".join(lines) + "\n"


def main() -> int:
    sys.stdout.write(flags_page())
    return 0
