"""Comparisons: the same training many times over, with one thing changed, and what came of it side by side."""
