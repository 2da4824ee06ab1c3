"""Stand-in."""

import polars as pl


def clean_text(text: str) -> str:
    return text


def clean_texts(texts: pl.Series) -> pl.Series:
    return texts
