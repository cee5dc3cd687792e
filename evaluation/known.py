"""Measured values of images that stay the same in many runs, such as counted spikes: each is measured once.

The values are found by the content of the image and its truth, so a changed image is measured again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor

from utils.io import write_json
from utils.json_files import number, read_json, table

Row = dict[str, float]


class Known:
    """Rows of measured values in a JSON file, which several runs may share.

    Args:
        path: the file; it need not exist.  None: nothing is stored.
        measure: what is measured, such as LPIPS's network: rows of another measure are not used.

    Raises:
        ValueError: not a file of such rows.
    """

    def __init__(self, path: Path | None = None, measure: str = ""):
        self._path, self._measure = path, measure
        self._rows = self._stored()
        self._before = frozenset(self._rows)

    def _stored(self) -> dict[str, Row]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            return dict(read_json(self._path, table(table(number())), "table of measured values"))
        except ValueError as error:
            raise ValueError(f"{error}; without the file, the values are measured again") from None

    def key(self, image: Tensor, truth: Tensor) -> str:
        """The key of an image [C, H, W] and its truth [C, H, W]."""
        content = hashlib.sha256(f"{self._measure} {[*image.shape]}".encode())
        for values in (image, truth):
            content.update(values.float().contiguous().numpy().tobytes())
        return content.hexdigest()

    def get(self, key: str) -> Row | None:
        """The values of an image, or None if they are not known."""
        return self._rows.get(key)

    def add(self, key: str, row: Row) -> None:
        """Keep the values of an image."""
        self._rows[key] = row

    @property
    def new(self) -> dict[str, Row]:
        """The rows that were added, by key."""
        return {key: row for key, row in self._rows.items() if key not in self._before}

    def save(self) -> None:
        """Write the file, with what other runs added to it in the meantime."""
        if self._path is not None:
            write_json(self._path, self._stored() | self._rows)
