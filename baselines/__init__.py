"""The systems that the paper compares with: images from the spikes of one view, and what their scenes need.

``baselines.images`` is the interface of a method that makes images; ``baselines.providers`` lists the methods by name.
"""
