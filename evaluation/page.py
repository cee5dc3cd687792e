"""HTML pages that open from disk: self-contained single files.  The templates escape all text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

TEMPLATES = Path(__file__).parent / "templates"
JPEG_QUALITY = 92


def _slug(name: str) -> str:
    """Convert a heading to an anchor name."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["slug"] = _slug
    made.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    made.globals["script"] = Markup((TEMPLATES / "page.js").read_text(encoding="utf-8"))
    return made


_TEMPLATES = _environment()


def render(template: str, **values: Any) -> Markup:
    """Render one of the templates."""
    return Markup(_TEMPLATES.get_template(template).render(**values))


@dataclass(frozen=True)
class Embedded:
    """An image embedded in a page: a data URL, and its size in pixels."""

    address: str
    width: int
    height: int

    @classmethod
    def of(cls, image: Tensor) -> Embedded:
        """Encode an image [C, H, W] of intensities in [0, 1] as JPEG."""
        array = image.permute(1, 2, 0).numpy()[..., ::-1]  # OpenCV writes BGR
        pixels = np.ascontiguousarray((array.clip(0, 1) * 255).round().astype(np.uint8))
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        address = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
        return cls(address, pixels.shape[1], pixels.shape[0])


@dataclass(frozen=True)
class Card:
    """One view: its images by kind, each with its caption."""

    name: str
    images: dict[str, tuple[Embedded, str]]

    @property
    def width(self) -> int:
        """Width of its images, pixels."""
        return next((image.width for image, _ in self.images.values()), 1)

    @property
    def height(self) -> int:
        """Height of its images, pixels."""
        return next((image.height for image, _ in self.images.values()), 1)


@dataclass(frozen=True)
class Views:
    """Views in a row; a border can be dragged between two kinds of images.

    Args:
        title: heading above the views.
        labels: labels of the kinds, in menu order; ``left`` and ``right`` are shown initially.
        cards: the views.
    """

    title: str
    labels: dict[str, str]
    left: str
    right: str
    cards: Sequence[Card]
