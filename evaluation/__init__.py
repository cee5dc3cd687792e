"""What a trained model is worth: images and trajectories against the truth, tables and reports."""
