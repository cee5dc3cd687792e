"""Tensors in a file, read when they are used and dropped from memory when it is short."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.io import unwritable


class MappedTensors:
    """Float tensors in a file that has no name: it vanishes with the process, however that ends.

    The operating system reads a tensor's pages when they are used, and keeps them as long as there is room.

    Args:
        folder: a folder on the file system that has room for them; it must exist.
        tensors: what the file contains; float32, on the CPU.

    Attributes:
        tensors: the same tensors, mapped.  Changes to them stay in memory.

    Raises:
        ValueError: the file cannot be written, for example because the disk is full.
    """

    def __init__(self, folder: str | os.PathLike[str], tensors: Sequence[Tensor]):
        try:
            with tempfile.TemporaryFile(dir=folder, prefix=".targets-") as file:
                for value in tensors:
                    file.write(value.contiguous().numpy().tobytes())
                file.flush()
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise unwritable(Path(folder), error, sum(4 * value.numel() for value in tensors)) from error
        self.tensors: list[Tensor] = []
        self._starts: list[int] = []
        start = 0
        for value in tensors:
            flat = torch.frombuffer(self._map, dtype=torch.float32, count=value.numel(), offset=start)
            self.tensors.append(flat.view(value.shape))
            self._starts.append(start)
            start += 4 * value.numel()

    def expect(self, index: int, row: int) -> None:
        """Ask the operating system to read row ``row`` of a tensor in the background: it will be used soon."""
        if hasattr(self._map, "madvise"):
            size = 4 * math.prod(self.tensors[index].shape[1:])
            start = self._starts[index] + row * size
            page = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, page, size + start - page)
