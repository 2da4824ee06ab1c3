"""Synthetic reviews with known interests, and how much of them is recovered."""
