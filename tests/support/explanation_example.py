"""Example explanations of guitar accessories with consistent numbers."""

import re
from typing import Any

Json = dict[str, Any]

ASPECTS = {
    3: "strap, shoulder, comfortable, padded, leather",
    7: "price, cheap, money, value, worth",
    11: "button, slips, lock, falls, secure",
    14: "sound, tone, warm, bright, strings",
}

# Contribution and aspect of words; other words have a hundredth of the weakest.
LEXICON = {
    "comfortable": (0.31, 3),
    "comfortably": (0.22, 3),
    "shoulder": (0.12, 3),
    "strap": (0.071, 3),
    "leather": (0.094, 3),
    "padded": (0.18, 3),
    "heavy": (0.083, 3),
    "bass": (0.052, 14),
    "hours": (0.044, 3),
    "price": (0.064, 7),
    "worth": (0.11, 7),
    "cheap": (-0.061, 7),
    "slips": (-0.19, 11),
    "slipped": (-0.14, 11),
    "button": (0.031, 11),
    "secure": (0.13, 11),
    "stiff": (-0.12, 3),
    "short": (-0.15, 3),
    "gig": (0.048, 14),
    "smell": (-0.055, 3),
}

LONG_REVIEW = """I play a five string bass that weighs close to eleven pounds, and after a three hour gig my \
left shoulder used to be done for the week. I went through four straps in two years.

This one is different. It is three and a half inches wide and padded all the way, and it spreads the \
weight so well that I forget about it. Comfortable is not the word, it is like a good chair. I have worn \
it comfortably for hours now, at two rehearsals and one wedding, and nothing hurts.

What I do not like: the leather was stiff in the first week, and there is a smell that takes a while to \
go away. The holes are tight too, so bring a little patience when you put it on the strap button for the \
first time. Once it is on it is secure, I do not use strap locks any more.

Is it worth twice the price of a nylon strap? If your bass is heavy, without any doubt. If you play a \
light guitar sitting down, save the money and buy strings."""

REVIEWS = [
    ("review", "A2PD27UKAD3Q00", 5.0, LONG_REVIEW),
    (
        "review",
        "A1CPTHDTGZIG4",
        4.0,
        "Very comfortable strap for the price. The padded part sits right on the shoulder and doesn't slide. "
        'Took a star off because it was stiff out of the box & the ends look a little "cheap".',
    ),
    (
        "description",
        None,
        None,
        "Padded leather strap for guitar and bass, 3.5 inches wide. Adjusts from 44 to 52 inches.",
    ),
    ("review", "A39SDMHOTGGJ4Y", 5.0, "Secure, comfortable, good looking. Worth it."),
    (
        "review",
        "AJNFQI3YR6XJ5",
        2.0,
        "Too short for me (I'm 6'4\") even on the last hole, and it slips off the strap button of my "
        "Jazzmaster. It slipped twice on stage!",
    ),
]


def passage(index: int, kind: str, user_id: str | None, rating: float | None, text: str) -> Json:
    """Passage with each run of letters as a word; effects are 0.8 of the contributions."""
    words = []
    for match in re.finditer(r"\w+", text):
        value, aspect = LEXICON.get(match[0].lower(), (0.0003 * (len(match[0]) % 3 - 1), 14))
        words.append(
            {
                "start": match.start(),
                "end": match.end(),
                "text": match[0],
                "contribution": value,
                "effect": 0.8 * value,
                "aspect": aspect,
            }
        )
    return {
        "passage_idx": index,
        "kind": kind,
        "user_id": user_id,
        "rating": rating,
        "text": text,
        "contribution": sum(word["contribution"] for word in words),
        "effect": sum(word["effect"] for word in words),
        "words": words,
    }


def explanation(
    reviews: list[tuple[str, str | None, float | None, str]] = REVIEWS,
    *,
    item_id: str = "B0002D0CEO",
    title: str | None = "Levy's 3.5\" Padded Leather Bass Strap, Black",
    rank: int | None = 3,
    popularity: float = 0.4,
    collaboration: float = -0.12,
) -> Json:
    """Explanation whose terms, lead, aspects and passages are derived from the words of its reviews."""
    passages = sorted(
        (passage(100 + at, *review) for at, review in enumerate(reviews)),
        key=lambda entry: -entry["contribution"],
    )
    sums = dict.fromkeys(ASPECTS, 0.0)
    for entry in passages:
        for word in entry["words"]:
            sums[word["aspect"]] += word["contribution"]
    words = sum(sums.values())
    terms = {
        "user": 3.1,
        "popularity": 0.9 + popularity,
        "words_everywhere": 0.25,
        "words": words,
        "collaboration": 0.2 + collaboration,
    }
    lead = {"words": words + 0.03, "popularity": popularity, "collaboration": collaboration}
    return {
        "user_id": "A2XYZ7Q4JW1M",
        "item_id": item_id,
        "title": title,
        "rank": rank,
        "num_candidates": 412,
        "score": sum(terms.values()),
        "terms": terms,
        "lead": {"item_id": "B000068NW5", "total": sum(lead.values()), **lead},
        "aspects": [
            {"aspect": aspect, "name": ASPECTS[aspect], "contribution": value}
            for aspect, value in sorted(sums.items(), key=lambda entry: -abs(entry[1]))
        ],
        "passages": passages,
        "history": [
            {
                "item_id": "B0002E1G5C",
                "title": "Ernie Ball Slinky Bass Strings, 50-105",
                "weight": 0.46,
                "contribution": 0.61,
            },
            {"item_id": "B0006NDF8A", "title": None, "weight": 0.33, "contribution": 0.4},
            {
                "item_id": "B00006LVEU",
                "title": "Dunlop Strap Lock Retainers",
                "weight": 0.21,
                "contribution": None,
            },
        ],
    }


def result() -> Json:
    """The three best items of one user."""
    capo = [
        (
            "review",
            "A27L5L6I7OSV5B",
            5.0,
            "Great tone, secure on the neck, and the price is right. Worth every cent.",
        ),
        ("review", "A3M1PLEYNDEYO8", 3.0, "Works, but the spring is stiff. Cheap rubber."),
    ]
    stand = [("description", None, None, "Folding stand for guitar and bass, padded arms.")]
    return {
        "dataset": "musical-instruments",
        "model": {"encoder": "google/t5gemma-2b-2b-ul2", "form": "cosine", "aspects": 64},
        "explanations": [
            explanation(
                capo,
                item_id="B0002GFPYU",
                title="Quick-Change Capo",
                rank=1,
                popularity=2.4,
                collaboration=0.31,
            ),
            explanation(stand, item_id="B000EEHKVY", title=None, rank=2, popularity=1.7, collaboration=0.9),
            explanation(),
        ],
    }


def short(text: str, *words: tuple[int, int, float]) -> Json:
    """An explanation with one review, whose words are (start, end, contribution)."""
    spans = [
        {"start": start, "end": end, "text": text[start:end], "contribution": c, "effect": c / 2, "aspect": 3}
        for start, end, c in words
    ]
    total = sum(c for _, _, c in words)
    passage = {
        "passage_idx": 7,
        "kind": "review",
        "user_id": "U",
        "rating": 4.0,
        "text": text,
        "contribution": total,
        "effect": total / 2,
        "words": spans,
    }
    return {**explanation(), "passages": [passage]}
