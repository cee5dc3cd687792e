"""A viewer in the browser, for a trained model (``python -m gaussian_renderer.viewer``) or while training."""

from gaussian_renderer.viewer.canvas import Canvas, SavedPictures
from gaussian_renderer.viewer.server import State, Viewer

__all__ = ["Canvas", "SavedPictures", "State", "Viewer"]
