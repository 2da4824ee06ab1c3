"""Copies of a text: the same in every form of Unicode, with entities and tags, in any case and spacing."""

import itertools
import unicodedata

import pytest

from llmdirect.text.duplicates import normalize_text, text_ids

TEXT = "Crème brûlée & señor «déjà» ﬁne, 1½ Straße ㈱"


@pytest.mark.parametrize(
    "copy",
    [
        *(unicodedata.normalize(form, TEXT) for form in ("NFC", "NFD", "NFKC", "NFKD")),
        TEXT.replace("&", "&amp;amp;").replace("è", "&egrave;"),
        TEXT.replace(" ", "\u200b\u00a0\r\n"),
        f"<p>{TEXT.upper()}</p>",
        " \ufeff" + TEXT.replace("Stra", "Stra\u00ad") + "\t",
        unicodedata.normalize("NFD", TEXT).casefold(),
    ],
)
def test_a_copy_in_another_form_is_a_copy(copy: str) -> None:
    assert normalize_text(copy) == normalize_text(TEXT)
    assert text_ids([copy, TEXT]).tolist() == [0, 0]


def test_other_texts_are_no_copies() -> None:
    texts = ["a < b", "a b", "a, b", "naive", "na\u00efve", "x <y> z", "x z"]
    for first, second in itertools.combinations(texts, 2):
        assert normalize_text(first) != normalize_text(second)
    assert len(set(text_ids(texts).tolist())) == len(texts)


def test_texts_without_characters_are_none() -> None:
    assert text_ids(["", " \n", "\u200b", "<br>", "x"]).tolist()[:4] == [-1] * 4
    assert text_ids(iter([])).tolist() == []


@pytest.mark.parametrize(
    "letter", ["\u1e9e", "\u0130", "\u03c2", "\u1e9b\u0323", "\u0345\u1fb3", "\ufb03", "\u2167"]
)
def test_normalisation_is_stable(letter: str) -> None:
    assert normalize_text(normalize_text(letter)) == normalize_text(letter)
