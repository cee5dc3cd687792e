"""JSON files, read with a schema: what is not as expected becomes one sentence with the file and the place in it.

A schema is a function from a value to the checked value.  They are made by the functions below, for example

    CAMERA = record({"name": text(), "w2c": array(None, 4, 4)}, {"iteration": whole()})
    cameras = read_json(path, items(CAMERA))

Limits hold for every file: bytes, depth of nesting, and finite numbers of a sensible size.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.reading import read_text

Schema = Callable[[Any], Any]

# A hundred times the largest file that this program writes; lists in memory take ten times as much.
LARGEST_FILE = 1 << 26
DEEPEST = 64
# Far above any coordinate or pixel, and far below the end of float32.
LARGEST_NUMBER = 1e12
_SHOWN = 80


class Unexpected(ValueError):
    """A value that does not fit its schema; containers add the place where it is."""

    def __init__(self, message: str):
        super().__init__(message)
        self.place = ""

    def inside(self, place: str) -> Unexpected:
        """The same error, one container further out."""
        self.place = f"{place}{self.place}"
        return self

    def __str__(self) -> str:
        return " ".join(filter(None, (self.place.removeprefix("."), super().__str__())))


def shown(value: Any) -> str:
    """A value as JSON, shortened for a message."""
    if isinstance(value, (list, dict)) and len(value) > _SHOWN:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)} entries"
    try:
        whole_text = json.dumps(value)
    except (ValueError, TypeError, RecursionError):  # an integer of thousands of digits, ...
        return f"a {type(value).__name__}"
    return whole_text if len(whole_text) <= _SHOWN else whole_text[: _SHOWN - 3] + "..."


def _wrong(value: Any, expected: str) -> Unexpected:
    return Unexpected(f"is {shown(value)}, expected {expected}")


# ---- schemas ---------------------------------------------------------------------------------------------


def anything(value: Any) -> Any:
    """Every value."""
    return value


def number(
    least: float = -LARGEST_NUMBER, most: float = LARGEST_NUMBER, above: float | None = None, from_text: bool = False
) -> Schema:
    """A finite number from ``least`` (or above ``above``) to ``most``; with ``from_text``, also as text ("0.5")."""
    words = ["a positive number" if above == 0 else "a number"]
    if above:
        words.append(f"above {above:g}")
    elif least > -LARGEST_NUMBER:
        words.append(f"of at least {least:g}")
    if most < LARGEST_NUMBER:
        words.append(f"of at most {most:g}" if len(words) == 1 else f"and at most {most:g}")
    expected = " ".join(words)

    def check(value: Any) -> float:
        found = value
        if from_text and isinstance(value, str):
            try:
                found = float(value)
            except ValueError:
                raise _wrong(value, expected) from None
        if type(found) not in (int, float):
            raise _wrong(value, expected)
        try:
            found = float(found)
        except OverflowError:
            raise Unexpected(f"is an integer of hundreds of digits, expected {expected}") from None
        if math.isfinite(found) and abs(found) > max(LARGEST_NUMBER, -least, most):
            raise _wrong(value, f"{expected} below {LARGEST_NUMBER:g}")
        if not (math.isfinite(found) and least <= found <= most and (above is None or found > above)):
            raise _wrong(value, expected)
        return found

    return check


def whole(least: int = 0, most: int = 2**53, from_text: bool = False) -> Schema:
    """A whole number (also written as 4.0); with ``from_text``, also as text."""
    expected = f"a whole number from {least}" + (f" to {most}" if most < 2**53 else "")
    real = number(least, most, from_text=from_text)

    def check(value: Any) -> int:
        try:
            found = real(value)
        except Unexpected:
            raise _wrong(value, expected) from None
        if found != int(found):
            raise _wrong(value, expected)
        return int(found)

    return check


def text(*choices: str) -> Schema:
    """Text without control characters, one of ``choices`` if any are given."""
    expected = f"{'one of ' if len(choices) > 1 else ''}{', '.join(choices) or 'text'}"

    def check(value: Any) -> str:
        if not isinstance(value, str) or (choices and value not in choices):
            raise _wrong(value, expected)
        # Half characters stand for bytes of a file's name that are not text (PEP 383); others cannot be in one.
        if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xDC80 or 0xDD00 <= ord(c) < 0xE000 for c in value):
            raise _wrong(value, f"{expected} without control characters")
        return value

    return check


def nonempty(value: Any) -> str:
    """Text of at least one character."""
    if not text()(value):
        raise _wrong(value, "text of at least one character")
    return str(value)


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def array(*shape: int | None, most: float = LARGEST_NUMBER) -> Schema:
    """An array of finite numbers with this shape (None: any length), as float64."""
    sizes = " x ".join("N" if n is None else str(n) for n in shape)
    expected = f"an array of finite numbers, {sizes}" + (f", of at most {most:g}" if most < LARGEST_NUMBER else "")

    def check(value: Any) -> NDArray[np.float64]:
        try:
            # Without a type, numpy does not turn text and null into numbers.
            found = np.asarray(value)
        except (ValueError, OverflowError):
            raise _wrong(value, expected) from None
        if found.dtype.kind not in "iuf" or found.ndim != len(shape):
            raise _wrong(value, expected)
        if any(n is not None and n != m for n, m in zip(shape, found.shape, strict=True)):
            raise Unexpected(f"is an array of {' x '.join(map(str, found.shape))}, expected {expected}")
        if not (np.abs(found) <= most).all():
            raise _wrong(value, expected)
        return found.astype(np.float64)

    return check


def items(of: Schema, least: int = 0) -> Schema:
    """A list of at least ``least`` values."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) < least:
            raise _wrong(value, f"a list of at least {least}" if least else "a list")
        found = []
        for i, entry in enumerate(value):
            try:
                found.append(of(entry))
            except Unexpected as error:
                raise error.inside(f"[{i}]") from None
        return found

    return check


def table(of: Schema) -> Schema:
    """An object with any keys."""
    name = text()

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(value, "an object")
        return {name(key): _entry(of, key, entry) for key, entry in value.items()}

    return check


def record(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, closed: bool = False
) -> Schema:
    """An object with these keys; an optional key may be null, which is the same as absent.

    Args:
        closed: whether other keys are errors; otherwise they are kept unchecked, as other programs write them.
    """
    known = {**required, **(optional or {})}

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(value, "an object")
        other = value.keys() - known.keys()
        if closed and other:
            raise Unexpected(f"has the key {shown(min(other))}, expected an object with any of {', '.join(known)}")
        for key in required:
            if key not in value:
                raise Unexpected(f"has no {key}")
        found = {key: value[key] for key in value if key in other}
        for key, of in known.items():
            if key in required or value.get(key) is not None:
                found[key] = _entry(of, key, value[key])
        return found

    return check


def as_stored(of: Schema) -> Schema:
    """A value of the schema ``of``, unchanged."""

    def check(value: Any) -> Any:
        of(value)
        return value

    return check


def nullable(of: Schema) -> Schema:
    """Null, or a value of the schema ``of``."""
    return lambda value: None if value is None else of(value)


def _entry(of: Schema, key: str, value: Any) -> Any:
    try:
        return of(value)
    except Unexpected as error:
        raise error.inside(f".{key}") from None


# ---- files -----------------------------------------------------------------------------------------------


def parse_json(content: str, schema: Schema) -> Any:
    """The checked value of a JSON text.

    Raises:
        ValueError: not JSON, nested too deeply, or not as the schema says.
    """
    try:
        loaded = json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except ValueError:  # Python limits the conversion of text to integers
        raise ValueError("a number of thousands of digits") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    level = [loaded]
    for _ in range(DEEPEST):
        level = [child for value in level for child in _children(value) if isinstance(child, (dict, list))]
    if level:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return schema(loaded)


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def read_json(path: str | os.PathLike[str], schema: Schema, kind: str = "JSON file") -> Any:
    """The checked contents of a JSON file (UTF-8, with or without a byte-order mark).

    Args:
        kind: what the file holds, for messages.

    Raises:
        ValueError: the file is missing, not regular, too large, not JSON, or not as the schema says; the message
            names the file, what was found and what was expected.
    """
    content = read_text(path, kind, LARGEST_FILE)
    try:
        return parse_json(content, schema)
    except Unexpected as error:
        raise ValueError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a readable {kind} ({error})") from None


def read_json_lines(path: str | os.PathLike[str], schema: Schema, kind: str = "file") -> tuple[list[Any], int]:
    """The checked records of a file with one JSON value per line, and how many lines are not such records.

    Raises:
        ValueError: the file is missing, not regular, too large or not readable.
    """
    records, unreadable = [], 0
    for line in read_text(path, kind, LARGEST_FILE, errors="replace").splitlines():
        try:
            records.append(parse_json(line, schema))
        except ValueError:
            unreadable += 1
    return records, unreadable
