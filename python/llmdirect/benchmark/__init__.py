"""Comparison of DIRECT with tuned baselines."""
