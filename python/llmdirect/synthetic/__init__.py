"""Synthetic reviews with planted interests, and metrics of their recovery."""
