"""From a recording without poses to a scene: windows, structure from motion, files, a report."""
