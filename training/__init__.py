"""Training: the state of a run, what it samples, what it learns from, and the methods as recipes."""
