"""The vertices of a PLY file as columns: text or binary, with every count compared with the file's size."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.reading import reading, require_file

Columns = dict[str, NDArray[np.generic]]

_LONGEST_HEADER = 1 << 20
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Element:
    """A table of ``count`` rows; ``types`` by property, None for a list, whose shortest row has ``least`` bytes."""

    name: str
    count: int
    types: dict[str, str | None]
    least: int

    @property
    def has_lists(self) -> bool:
        """Whether the rows differ in length."""
        return None in self.types.values()


@dataclass(frozen=True)
class Header:
    """The first lines of a PLY file: byte order ("" for text), tables, comments, and the header's own length."""

    order: str
    elements: list[Element]
    comments: list[str]
    size: int

    def of(self, name: str) -> Element | None:
        """The element with this name, if any."""
        return next((element for element in self.elements if element.name == name), None)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the header of a PLY file.

    Raises:
        ValueError: not a PLY file, or one too small for the rows that it announces (names the file).
    """
    size = require_file(path, "PLY file")
    with reading(path, "a readable PLY"):
        with open(path, "rb") as file:
            start = file.read(_LONGEST_HEADER)
        first = re.match(rb"ply[ \t]*(\r\n|\n|\r)", start)
        end = first and re.search(rb"[\r\n]end_header[ \t]*" + first[1], start)
        if not first or not end:
            raise ValueError(f"its first {min(size, _LONGEST_HEADER)} bytes are no header")
        header = _parsed(start[: end.start() + 1].decode("utf-8", "replace"), end.end())
        least = sum(element.count * element.least for element in header.elements)
        if least > size - header.size:
            rows = " and ".join(f"{element.count} {element.name}" for element in header.elements)
            raise ValueError(f"{size - header.size} bytes after the header, expected at least {least} for {rows}")
    return header


def _parsed(text: str, size: int) -> Header:
    order, elements, comments = None, list[Element](), list[str]()
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[:1] in ([], ["obj_info"]):
            continue
        if words[0] == "comment":
            comments.append(line.split(None, 1)[1] if len(words) > 1 else "")
        elif words[0] == "format" and len(words) == 3 and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and re.fullmatch(r"[0-9]{1,18}", words[2]):
            elements.append(Element(words[1], int(words[2]), {}, 0))
        elif words[0] == "property" and elements and words[-1] not in elements[-1].types:
            elements[-1] = _with_property(elements[-1], words, order)
        else:
            raise ValueError(f"the header has the line {line[:80]!r}")
    if order is None:
        raise ValueError("the header names no format")
    return Header(order, elements, comments, size)


def _with_property(element: Element, words: list[str], order: str | None) -> Element:
    is_list = words[1] == "list"
    kinds = words[2:4] if is_list else words[1:2]
    if len(words) != (5 if is_list else 3) or not set(kinds) <= set(_TYPES):
        raise ValueError(f"the header has the line {' '.join(words)[:80]!r}")
    kind = _TYPES[kinds[0]]
    # The shortest list is its length alone; the shortest number in text is a digit and a separator.
    least = element.least + (int(kind[1]) if order else 2)
    return Element(element.name, element.count, element.types | {words[-1]: None if is_list else kind}, least)


def read_vertices(path: str | os.PathLike[str]) -> tuple[Columns, list[str]]:
    """The columns of the element ``vertex`` by name, and the comments of the header.

    Raises:
        ValueError: not a readable PLY with vertices of numbers (names the file).
    """
    header = read_header(path)
    vertex = header.of("vertex")
    with reading(path, "a readable PLY with vertices"):
        if vertex is None:
            found = ", ".join(element.name for element in header.elements) or "none"
            raise ValueError(f"it has the elements {found}")
        before = header.elements[: header.elements.index(vertex)]
        for element in [*before, vertex] if header.order else [vertex]:
            if element.has_lists:
                name = next(name for name, kind in element.types.items() if kind is None)
                raise ValueError(f"property {name} of {element.name} is a list, expected one number")
        if not vertex.types:
            return {}, header.comments
        if not header.order:
            return _from_text(path, header, vertex, sum(element.count for element in before)), header.comments
        dtype = np.dtype([(name, header.order + str(kind)) for name, kind in vertex.types.items()])
        start = header.size + sum(element.count * element.least for element in before)
        if not vertex.count:
            rows = np.empty(0, dtype)
        else:
            rows = np.memmap(path, dtype, "r", start, (vertex.count,))
        return {name: np.asarray(rows[name]) for name in vertex.types}, header.comments


def _from_text(path: str | os.PathLike[str], header: Header, vertex: Element, skipped: int) -> Columns:
    """The columns of the vertices in a text file: one row per line, after ``skipped`` lines of other elements."""
    with open(path, "rb") as file:
        file.seek(header.size)
        lines = file.read().decode("ascii").splitlines()[skipped : skipped + vertex.count]
    if len(lines) < vertex.count:
        raise ValueError(f"{len(lines)} lines of vertices, expected {vertex.count}")
    values = np.array([line.split() for line in lines], np.float64).reshape(vertex.count, -1)
    if vertex.count and values.shape[1] != len(vertex.types):
        raise ValueError(f"{values.shape[1]} numbers per vertex, expected {len(vertex.types)}")
    columns: Columns = {}
    for i, (name, kind) in enumerate(vertex.types.items()):
        column = values[:, i] if vertex.count else values.reshape(-1)
        if str(kind)[0] != "f":
            low, high = np.iinfo(str(kind)).min, np.iinfo(str(kind)).max
            if not ((column >= low) & (column <= high) & (column == np.floor(column))).all():
                raise ValueError(f"property {name} is not a whole number from {low} to {high} everywhere")
        with np.errstate(over="ignore"):  # an infinite value is refused where it is used
            columns[name] = column.astype(str(kind))
    return columns
