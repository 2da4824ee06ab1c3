"""Passages to token embeddings with a language model."""
