"""Reading of all raw sources of a dataset."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llmdirect.common.errors import DataError
from llmdirect.common.progress import Progress
from llmdirect.data.readers.item_metadata import ItemMetadata, read_item_metadata
from llmdirect.data.readers.reviews import Reviews, read_interactions, read_reviews
from llmdirect.data.readers.sources import RawSource

READERS_VERSION: Final = 2
"""Raised with every change of what is read from a source; datasets of other versions are prepared again."""


def check_own_split(sources: Mapping[str, RawSource], digests: Mapping[str, str | list[str]]) -> None:
    """Check that no file is in two of train, validation and test.

    Parameters
    ----------
    sources
        Sources by the names of the settings of `prepare`.
    digests
        Their hashes.

    Raises
    ------
    DataError
        If a file is.
    """
    first: dict[str, tuple[str, str]] = {}
    for name in ("source", "valid", "test"):
        if name not in sources:
            continue
        source, hashes = sources[name], digests[name]
        labels = [source.label_of(path) or str(path) for path in source.paths] or [source.label]
        for label, digest in zip(labels, [hashes] if isinstance(hashes, str) else hashes, strict=True):
            other, other_label = first.setdefault(digest, (name, label))
            if other != name:
                splits = {"source": "train", "valid": "validation", "test": "test"}
                same = (
                    "is the same file" if label == other_label else f"has the same content as {other_label}"
                )
                raise DataError(
                    f"{label}: {same} for {splits[other]} and {splits[name]} (`{name}`); give each split "
                    "reviews of its own"
                )


@dataclass(frozen=True)
class SourceReader:
    """Reader of the sources of a dataset, all with the same options."""

    sources: Mapping[str, RawSource]
    """Sources by the names of the settings of `prepare`: source, valid, test, interactions, items."""
    encoding: str | None
    quote: str | None
    skip_bad_lines: bool
    raw_text: bool
    progress: Progress

    @property
    def _options(self) -> dict[str, Any]:
        names = ("encoding", "quote", "skip_bad_lines", "progress")
        return {name: getattr(self, name) for name in names}

    def reviews(
        self, columns: Mapping[str, str] | None, with_summary: bool, split_column: str | None
    ) -> Reviews | None:
        """Reviews, with those of one's own validation and test; None where there are none."""
        if "source" not in self.sources:
            return None
        return read_reviews(
            self.sources["source"],
            columns=columns,
            with_summary=with_summary,
            raw_text=self.raw_text,
            split_column=split_column,
            valid=self.sources.get("valid"),
            test=self.sources.get("test"),
            **self._options,
        )

    def interactions(self, columns: Mapping[str, str] | None) -> Reviews | None:
        """Interactions without text; None where there are none."""
        if "interactions" not in self.sources:
            return None
        return read_interactions(self.sources["interactions"], columns=columns, **self._options)

    def item_metadata(
        self, columns: Mapping[str, str] | None, first: Reviews | None, only_reviewed: bool
    ) -> Callable[[list[str], Collection[str]], ItemMetadata] | None:
        """Function that reads the metadata of items, whose field is tried as in the first source.

        It takes the ids of the items of the dataset, and all ids of the sources. An item of the file that no
        source names becomes an item of the dataset, unless `only_reviewed`.
        """
        if "items" not in self.sources or first is None:
            return None
        item_field = next(field.field for field in first.fields if field.role == "item")

        def read(item_ids: list[str], named: Collection[str]) -> ItemMetadata:
            return read_item_metadata(
                self.sources["items"],
                item_ids,
                excluded=None if only_reviewed else named,
                columns=columns,
                review_item_field=item_field,
                raw_text=self.raw_text,
                **self._options,
            )

        return read
