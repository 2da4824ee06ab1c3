"""Lexicon: word vectors appended to token embeddings; lookup, sums, fit, serialisation."""

import numpy as np
import pytest
import torch

from llmdirect.collaborative.similarity import WordSimilarity
from llmdirect.model.train_view import TrainView
from llmdirect.text.lexicon import Lexicon
from model_helpers import DIM, Row, dataset_of, write_embeddings

VECTORS = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])
LEXICON = Lexicon(("cable", "caf\u00e9s"), VECTORS)


@pytest.mark.parametrize(
    ("text", "spans", "words", "share"),
    [
        # Pieces of one word share its vector; a piece belongs to the word in which it starts.
        ("Cable, a cable", [[0, 2], [2, 6], [7, 8], [9, 14]], [0, 0, -1, 0], [0.5, 0.5, 0.0, 1.0]),
        ("unknown", [[0, 7]], [-1], [1.0]),
        ("CAF\u00c9S", [[0, 0], [0, 5], [0, 0]], [-1, 1, -1], [0.0, 1.0, 0.0]),
        ("", [], [], []),
        ("...", [[0, 3]], [-1], [0.0]),
    ],
)
def test_tokens_map_to_word_of_their_start(
    text: str, spans: list[list[int]], words: list[int], share: list[float]
) -> None:
    indices = LEXICON.lookup(text, np.array(spans, np.uint32).reshape(-1, 2))
    assert indices[0].tolist() == words
    assert indices[1].tolist() == share


def test_combining_mark_does_not_end_word() -> None:
    lexicon = Lexicon(("cafe\u0301s",), VECTORS[:1])
    assert lexicon.lookup("Cafe\u0301s", np.array([[0, 6]], np.uint32))[0].tolist() == [0]


def test_extend_appends_word_vectors() -> None:
    tokens, spans = np.ones((3, 4), np.float32), np.array([[0, 2], [2, 5], [6, 9]], np.uint32)
    extended = LEXICON.extend(tokens, "cable new", spans)
    assert extended[:, :4].tolist() == tokens.tolist()
    assert extended[:, 4:].tolist() == [[0.5, 1.0], [0.5, 1.0], [0.0, 0.0]]
    assert Lexicon.empty().extend(tokens, "cable new", spans) is tokens


def test_save_and_load_round_trip() -> None:
    for lexicon in (LEXICON, Lexicon.empty()):
        again = Lexicon.from_tensors(lexicon.to_tensors())
        assert again.words == lexicon.words
        assert torch.equal(again.vectors, lexicon.vectors)


@pytest.fixture(scope="module")
def lexicon_and_views(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainView, WordSimilarity, TrainView, Lexicon]:
    rng, rows = np.random.default_rng(0), []
    for user in range(12):
        for item in rng.choice(10, 4, replace=False).tolist():
            words = [f"kind{item % 3}", f"maker{item % 5}", "good", *(f"w{n}" for n in rng.integers(0, 9, 3))]
            rows.append(Row(user, item, " ".join(words) + "!"))
    rows.append(Row(0, 9, ""))
    dataset = dataset_of(rows, 12, 10)
    texts = dataset.passages.text
    view = TrainView.from_dataset(
        dataset, write_embeddings(tmp_path_factory.mktemp("lexicon") / "store", texts.to_list())
    )
    texts = texts.gather(view.passage_idx)
    words = WordSimilarity(view, texts)
    lexicon = words.lexicon(view, 6)
    return view, words, view.with_lexicon(lexicon, texts), lexicon


def test_vectors_span_leading_directions(
    lexicon_and_views: tuple[TrainView, WordSimilarity, TrainView, Lexicon],
) -> None:
    """Reference: singular vectors of dense E; equal subspace after scaling words by their weight."""
    view, words, _, lexicon = lexicon_and_views
    counts = words._counts_of(torch.arange(view.num_items))
    rows = words._directions(counts)
    leading = torch.linalg.svd(rows)[2][:6]
    directions = torch.linalg.qr(lexicon.vectors.double() / words.weight.clamp(min=1e-12)[:, None])[0].T
    overlap = torch.linalg.svdvals(leading @ directions.T)
    assert torch.allclose(overlap, torch.ones_like(overlap), atol=1e-4)


def test_pooled_passages_are_means_of_tokens(
    lexicon_and_views: tuple[TrainView, WordSimilarity, TrainView, Lexicon],
) -> None:
    view, _, worded, lexicon = lexicon_and_views
    assert worded.dim == DIM + lexicon.dim == worded.pooled.shape[1]
    rows = torch.arange(len(view.lengths))
    tokens, mask = worded.tokens(rows)
    plain, _ = view.tokens(rows)
    assert torch.equal(tokens[..., :DIM], plain)
    mean = tokens.sum(1) / mask.sum(1).clamp(min=1)[:, None]
    torch.testing.assert_close(mean, worded.pooled, rtol=1e-5, atol=1e-6)
    assert worded.pooled[:, DIM:].abs().sum() > 0


def test_word_vectors_have_half_the_spread_of_embeddings(
    lexicon_and_views: tuple[TrainView, WordSimilarity, TrainView, Lexicon],
) -> None:
    view, _, worded, _ = lexicon_and_views
    non_empty = worded.pooled[view.lengths > 0]
    squared_deviation = (non_empty - non_empty.mean(0)).square()
    by_embedding, by_words = (
        squared_deviation[:, :DIM].sum(1).mean().sqrt(),
        squared_deviation[:, DIM:].sum(1).mean().sqrt(),
    )
    assert float(by_words / by_embedding) == pytest.approx(0.5, rel=1e-4)


def test_lexicon_is_empty_for_identical_texts(tmp_path: object) -> None:
    dataset = dataset_of([Row(user, item, "same words") for user in range(3) for item in range(3)], 3, 3)
    texts = dataset.passages.text
    view = TrainView.from_dataset(dataset, write_embeddings(tmp_path / "store", texts.to_list()))  # type: ignore[operator]
    words = WordSimilarity(view, texts.gather(view.passage_idx))
    assert words.lexicon(view, 4).dim == 0
    assert words.lexicon(view, 0).dim == 0
