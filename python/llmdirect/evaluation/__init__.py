"""Evaluation protocol and statistics of comparisons."""
