"""Word similarity of items against a plain loop of its formula."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.train_view import TrainView
from model_helpers import Row, dataset_of, write_embeddings

ITEMS = 6
ALL = torch.arange(ITEMS)
ROWS = [
    Row(0, 0, "Red guitar, red strings and a case"),
    Row(1, 0, "the guitar sounds warm"),
    Row(0, 1, "a red case for the Guitar"),
    Row(2, 1, "warm case, warm!"),
    Row(1, 2, "strings; strings, the strings"),
    Row(2, 3, "das Gehäuse ist rot"),
    Row(3, 3, "das Gehäuse"),
    Row(3, 4, ""),
    # Copied to two items: excluded from both.
    Row(4, 1, "I love red strings"),
    Row(4, 2, "I love red strings"),
]


@pytest.fixture(scope="module")
def documents_and_texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ItemDocuments, pl.Series]:
    dataset = dataset_of(ROWS, 5, ITEMS)
    texts = dataset.passages.text
    store = write_embeddings(tmp_path_factory.mktemp("similarity") / "store", texts.to_list())
    view = TrainView.from_dataset(dataset, store)
    return ItemDocuments(view, equal_reviews=False), texts.gather(view.passage_idx)


def naive_rows(skipped: int | None = None) -> np.ndarray:
    """TF-IDF matrix E with the word map of all rows, without one row."""

    def counted(rows: list[Row]) -> list[dict[str, int]]:
        items: list[dict[str, int]] = [{} for _ in range(ITEMS)]
        for row in rows:
            for mark in ",;!":
                row = Row(row.user, row.item, row.text.replace(mark, " "))
            for word in row.text.lower().split():
                if len(word) > 1:
                    items[row.item][word] = items[row.item].get(word, 0) + 1
        return items

    kept = ROWS[:8]
    everything = counted(kept)
    spread: dict[str, int] = {}
    for item in everything:
        for word in item:
            spread[word] = spread.get(word, 0) + 1
    words = sorted(word for word, count in spread.items() if count > 1)

    def rows_of(items: list[dict[str, int]]) -> np.ndarray:
        table = np.zeros((ITEMS, len(words)))
        for number, item in enumerate(items):
            for column, word in enumerate(words):
                if word in item:
                    idf = np.log((1 + ITEMS) / (1 + spread[word]))
                    table[number, column] = (1 + np.log(item[word])) * idf
        length = np.linalg.norm(table, axis=1, keepdims=True)
        return table / np.where(length > 0, length, 1)

    vectors = rows_of(everything)
    mean = vectors[vectors.any(1)].mean(0)
    vectors_without = rows_of(counted([row for number, row in enumerate(kept) if number != skipped]))
    deviations = np.where(vectors_without.any(1, keepdims=True), vectors_without - mean, 0)
    length = np.linalg.norm(deviations, axis=1, keepdims=True)
    return deviations / np.where(length > 0, length, 1)


def test_gram_matches_formula(documents_and_texts: tuple[ItemDocuments, pl.Series]) -> None:
    words = WordSimilarity(documents_and_texts[0].view, documents_and_texts[1])
    assert words.counts.vocabulary.to_list() == ["case", "guitar", "red", "strings", "the", "warm"]
    np.testing.assert_allclose(words.gram(ALL), naive_rows() @ naive_rows().T, rtol=0, atol=1e-12)
    alone = words.gram(ALL)[[3, 4, 5]]  # no common word, no text, no passage
    assert not alone.any()
    some = torch.tensor([0, 2, 4])
    np.testing.assert_array_equal(words.gram(some), words.gram(ALL)[some][:, some])


@pytest.mark.parametrize("skipped", range(8))
def test_text_change_matches_removal_of_passage(
    documents_and_texts: tuple[ItemDocuments, pl.Series], skipped: int
) -> None:
    words = WordSimilarity(documents_and_texts[0].view, documents_and_texts[1])
    item, passage = ROWS[skipped].item, documents_and_texts[1].to_list().index(ROWS[skipped].text)
    along, squares = words.text_change(torch.tensor([item]), torch.tensor([passage]))
    before, after = naive_rows(), naive_rows(skipped)
    lost = before[item] - after[item]
    np.testing.assert_allclose(along[0], before @ lost, rtol=0, atol=1e-12)
    np.testing.assert_allclose(squares[0], lost @ lost, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["words", "embeddings"])
def test_copies_and_missing_passages_change_nothing(
    documents_and_texts: tuple[ItemDocuments, pl.Series], kind: str
) -> None:
    documents, texts = documents_and_texts
    if kind == "words":
        alike: WordSimilarity | EmbeddingSimilarity = WordSimilarity(documents.view, texts)
    else:
        alike = EmbeddingSimilarity(documents, documents.view.pooled.mean(0))
    copies = [row for row, text in enumerate(texts) if text == ROWS[8].text]
    items = documents.view.passage_item[copies]
    along, squares = alike.text_change(torch.cat([items, items[:1]]), torch.tensor([*copies, -1]))
    assert len(along) == 3
    assert not along.any()
    assert not squares.any()


def test_rows_in_chunks(
    documents_and_texts: tuple[ItemDocuments, pl.Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = WordSimilarity(documents_and_texts[0].view, documents_and_texts[1])
    items, passages = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 2, 4])
    whole, gram = words.text_change(items, passages), words.gram(ALL)
    monkeypatch.setattr("llmdirect.collaborative.similarity._PART", 3)
    torch.testing.assert_close(words.text_change(items, passages), whole, rtol=0, atol=1e-15)
    torch.testing.assert_close(words.gram(ALL), gram, rtol=0, atol=1e-15)


def test_without_words(tmp_path: Path) -> None:
    dataset = dataset_of([Row(0, 0, "one"), Row(0, 1, "two"), Row(1, 1, "")], 2, 3)
    store = write_embeddings(tmp_path / "store", dataset.passages.text.to_list())
    words = WordSimilarity(TrainView.from_dataset(dataset, store), dataset.passages.text)
    assert not words.gram(torch.arange(3)).any()
    assert not words.text_change(torch.tensor([0]), torch.tensor([0]))[0].any()
