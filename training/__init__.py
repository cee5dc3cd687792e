"""Training: the state of a run, its samplers, its loss terms, and the methods as recipes."""
