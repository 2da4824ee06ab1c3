"""Readers of raw review and item files."""
