"""A browser viewer for a trained model (``python -m gaussian_renderer.viewer``) or a running training."""

from gaussian_renderer.viewer.canvas import Canvas
from gaussian_renderer.viewer.server import State, Viewer
from gaussian_renderer.viewer.sources import RecordedPictures, SavedPictures

__all__ = ["Canvas", "RecordedPictures", "SavedPictures", "State", "Viewer"]
