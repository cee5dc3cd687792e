"""Options that carry their help, bounds and flags: the fields of the dataclasses in this package."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

_BOUNDS = {
    "at_least": ("at least", lambda value, bound: value >= bound),
    "above": ("more than", lambda value, bound: value > bound),
    "at_most": ("at most", lambda value, bound: value <= bound),
    "below": ("less than", lambda value, bound: value < bound),
}


def option(
    default: Any,
    help: str,
    *,
    common: bool = False,
    names: tuple[str, ...] = (),
    odd: bool = False,
    by_size: bool = False,
    **bounds: float,
) -> Any:
    """Define a field of an ``Options`` dataclass, which is also a command-line flag.

    Args:
        default: the default value; a list is copied for every instance.
        help: a noun phrase with the unit.
        common: whether ``--help`` shows the flag; ``--help-all`` shows every flag.
        names: aliases of the flag, as in other programs.
        odd: whether a number must be odd.
        by_size: whether None is allowed; ``Settings.for_scene`` replaces it with a number.
        bounds: ``at_least``, ``above``, ``at_most`` or ``below``; without bounds, numbers must be at least 0.
    """
    metadata = {"help": help, "common": common, "names": names, "odd": odd, "by_size": by_size, "bounds": bounds}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base class of all options; values are checked on construction.

    Raises:
        ValueError: a number outside its bounds, or a value that is not one of the choices.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):
            _check(item, hints[item.name], getattr(self, item.name))


def choices_of(kind: Any) -> tuple[str, ...]:
    """The values that a ``Literal`` allows; empty for other types."""
    return get_args(kind) if get_origin(kind) is not list and not isinstance(kind, type) else ()


def _check(item: dataclasses.Field[Any], kind: Any, value: Any) -> None:
    if value is None and item.metadata["by_size"]:
        return
    name, choices = f"--{item.name}", choices_of(kind)
    if choices:
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        return
    if get_origin(kind) is list:
        if not isinstance(value, list) or not all(type(entry) is int and entry > 0 for entry in value):
            raise ValueError(f"{name} is {value!r}, expected whole numbers above 0")
        return
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r}, expected {_KINDS[kind]}")
    if kind not in (int, float):
        return
    bounds = item.metadata["bounds"] or {"at_least": 0}
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    for word, bound in bounds.items():
        if not _BOUNDS[word][1](value, bound):
            both = " and ".join(f"{_BOUNDS[word][0]} {bound}" for word, bound in bounds.items())
            raise ValueError(f"{name} must be {both}, not {value}")
    if item.metadata["odd"] and value % 2 == 0:
        raise ValueError(f"{name} must be odd, not {value}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
