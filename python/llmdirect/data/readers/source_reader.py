"""Reading of all raw sources of a dataset."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from llmdirect.common.progress import Progress
from llmdirect.data.readers.item_metadata import ItemMetadata, read_item_metadata
from llmdirect.data.readers.reviews import Reviews, read_interactions, read_reviews
from llmdirect.data.readers.sources import RawSource


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
