"""Evaluation of a trained model: images and trajectories against ground truth, tables and reports."""
