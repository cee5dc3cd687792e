"""The scene as 3D Gaussians: model, densification, initial points, and file formats."""
