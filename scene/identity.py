"""What identifies the recording that a run learns from, so that a resumed run is not continued with another one."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from scene.cameras import View
from scene.dataset import SceneData
from scene.lens import Lens

# Frames of a stream that are compared.  Reading all of a large recording would take minutes.
_FRAMES = 9


def _content(scene: SceneData, view: View, from_spikes: bool) -> str:
    """A digest of evenly spaced spike frames, however they are stored, or of the image file."""
    digest = hashlib.blake2b(digest_size=16)
    if from_spikes:
        stream = scene.open_stream(view).mended(None)
        digest.update(str(len(stream)).encode())
        for frame in np.linspace(0, len(stream) - 1, _FRAMES).round().astype(int).tolist():
            digest.update(np.packbits(stream.unpack(frame, frame + 1)).tobytes())
    elif view.image_path is not None:
        digest.update(view.image_path.read_bytes())
    return digest.hexdigest()


def _lens(lens: Lens) -> list[Any]:
    return [type(lens).__name__, *(round(x, 9) for x in (*lens.intrinsics, *lens.coefficients))]


def identity(scene: SceneData, from_spikes: bool) -> dict[str, Any]:
    """Names and order of the training views, their sizes, intrinsics and contents, and the sensor, as plain values.

    Poses and points are left out: a checkpoint has its own.
    """
    views = [
        {
            "name": view.camera.name,
            "size": f"{view.camera.width}x{view.camera.height}",
            "intrinsics": [round(x, 4) for x in view.camera.K.flatten().tolist()],
            "content": _content(scene, view, from_spikes),
        }
        | ({} if view.camera.lens is None else {"lens": _lens(view.camera.lens)})
        for view in scene.train
    ]
    sensor = {name: x if isinstance(x, str) else round(x, 9) for name, x in scene.sensor.to_dict().items()}
    maps = {"gain_map": scene.sensor.gain_map, "dark_map": scene.sensor.dark_map}
    sensor |= {
        name: hashlib.blake2b(values.numpy().tobytes(), digest_size=8).hexdigest()
        for name, values in maps.items()
        if values is not None
    }
    return {"views": views, "sensor": sensor}


_WORDS = {"size": "pixels", "intrinsics": "intrinsics", "lens": "lens distortion", "content": "spikes or another image"}


def difference(stored: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference between the identity of a scene ``now`` and a stored one; None if they are the same."""
    before, after = ([view["name"] for view in scene["views"]] for scene in (stored, now))
    if before != after:
        missing, new = ([name for name in a if name not in b] for a, b in ((before, after), (after, before)))
        if not missing and not new:
            place = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
            return f"its views are in another order: view {place + 1} is {after[place]}, expected {before[place]}"
        found = [f"has no training view {missing[0]}"] if missing else []
        found += [f"has the training view {new[0]}, which the run did not have"] if new else []
        return f"it {' and '.join(found)} ({len(after)} views, expected {len(before)})"
    for old, view in zip(stored["views"], now["views"], strict=True):
        for key, words in _WORDS.items():
            if old.get(key) != view.get(key):
                values = f" ({view[key]}, expected {old[key]})" if key in ("size", "intrinsics") else ""
                return f"view {view['name']} has other {words}{values}"
    if stored["sensor"] != now["sensor"]:
        return f"its sensor is {now['sensor']}, expected {stored['sensor']}"
    return None
