"""Templates and generator of synthetic headphone reviews with planted opinion words.

Outside the slots {w} and {v} no template contains a word of LEXICON or an opinion, so all opinions of a
text are in its planted words.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

LEXICON: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "sound": (
        (
            "crisp",
            "clear",
            "balanced",
            "detailed",
            "rich",
            "immersive",
            "vivid",
            "spacious",
            "warm",
            "natural",
        ),
        ("muddy", "tinny", "harsh", "shrill", "hollow", "muffled", "distorted", "boomy", "grating", "hissy"),
    ),
    "comfort": (
        (
            *("comfortable", "soft", "plush", "cosy", "gentle"),
            *("weightless", "breathable", "snug", "pillowy", "soothing"),
        ),
        (
            *("uncomfortable", "painful", "sweaty", "scratchy", "clammy"),
            *("itchy", "tight", "prickly", "irritating", "rough"),
        ),
    ),
    "build": (
        (
            *("sturdy", "solid", "durable", "robust", "rugged"),
            *("tough", "unbreakable", "resilient", "indestructible", "stable"),
        ),
        (
            *("flimsy", "fragile", "brittle", "rickety", "creaky"),
            *("wobbly", "shoddy", "loose", "delicate", "breakable"),
        ),
    ),
    "looks": (
        (
            *("stylish", "elegant", "sleek", "gorgeous", "handsome"),
            *("beautiful", "classy", "chic", "attractive", "tasteful"),
        ),
        ("ugly", "garish", "tacky", "drab", "dated", "gaudy", "hideous", "unsightly", "dowdy", "frumpy"),
    ),
    "price": (
        (
            *("affordable", "reasonable", "fair", "modest", "sensible"),
            *("justified", "unbeatable", "competitive", "economical", "appealing"),
        ),
        (
            *("steep", "outrageous", "excessive", "inflated", "exorbitant"),
            *("extortionate", "absurd", "unreasonable", "unfair", "ridiculous"),
        ),
    ),
    "battery": (
        (
            *("persistent", "dependable", "reliable", "tireless", "inexhaustible"),
            *("enduring", "powerful", "mighty", "trustworthy", "strong"),
        ),
        (
            *("fleeting", "weak", "feeble", "unreliable", "erratic"),
            *("pitiful", "puny", "faulty", "temperamental", "exhausted"),
        ),
    ),
}
"""Positive and negative words of each aspect; all words are distinct."""

ASPECTS: Final = tuple(LEXICON)

OPINIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "sound": (
        "The sound is {so} {w}, whether I play {genre} or a podcast.",
        "Music comes across as {so} {w}, and voices seem {v} to my ears.",
        "I compared them with my old pair, and the sound here is {w}.",
        "Through these, guitars and drums sound {so} {w}.",
        "With the volume at half, everything sounds {w} and {v}.",
        "I listen to a lot of {genre}, and it sounds {so} {w} on these.",
        "To my ears the bass is {w} and the treble {v}.",
        "Calls sound {w}, and so does the radio.",
        "As for the sound, I would call it {w} or even {v}.",
        "My playlist of {genre} sounds {w} from the first track to the last.",
    ),
    "comfort": (
        "The ear cushions feel {so} {w}, even with glasses on.",
        "On my head they are {w} and {v}.",
        "After {span} of wearing them, the pads feel {so} {w}.",
        "I wear them all day, and they feel {so} {w}.",
        "The headband feels {w} against my hair.",
        "For my ears the padding is {so} {w}.",
        "I have a large head, and on it they feel {w} and {v}.",
        "Comfort matters to me, and these pads are {so} {w}.",
        "Once they are on, the cups feel {w} around the ears.",
        "I wore them through {span} of meetings, and they felt {w} and {v}.",
    ),
    "build": (
        "The hinges are {so} {w}, and the frame feels {v}.",
        "They have been in my bag for {weeks}, and the casing seems {w}.",
        "The plastic of the arms is {so} {w}.",
        "As for the build, I would call it {w} and {v}.",
        "I dropped them once {where}, so I can say that the frame is {w}.",
        "When I fold them, the joints feel {so} {w}.",
        "The slider of the headband is {w} after {weeks} of daily use.",
        "In the hand the whole thing feels {so} {w}.",
        "The construction strikes me as {w}, from the plug to the hinges.",
        "My {kin} packs the same pair without a case and finds the frame {so} {w}.",
    ),
    "looks": (
        "The design is {so} {w}, at least to my eyes.",
        "In {colour} they look {w} and {v}.",
        "My {kin} saw them and called them {w}.",
        "The finish on the cups is {so} {w}.",
        "On the shelf and on my head they look {so} {w}.",
        "The photos do show it: the shape is {w} and the colour {v}.",
        "As for looks, I find the {colour} ones {so} {w}.",
        "Next to my coat and bag they look {w}.",
        "The logo and the stitching look {so} {w}.",
        "When I see myself in the mirror with them, they look {w} and {v}.",
    ),
    "price": (
        "The price is {so} {w} for what you get.",
        "I paid the list price, which I find {so} {w}.",
        "Compared with other pairs in the shop, the price seems {w}.",
        "What they ask for these is {so} {w}.",
        "I went through my budget twice: the cost is {w}, even {v}.",
        "As for the money, I would call the price {w} and {v}.",
        "With the voucher or without it, the price strikes me as {w}.",
        "My {kin} asked what I spent and called the sum {so} {w}.",
        "I pay for my own gear, so I checked: the price is {w} here.",
        "They cost what they did in {month}, and that is {so} {w}.",
    ),
    "battery": (
        "The battery is {so} {w}, and I use them every day.",
        "On {trip} the battery proved {so} {w}.",
        "I charge them on Sundays, and by Friday the battery seems {w}.",
        "Between two charges the battery is {w} and {v}.",
        "With noise cancelling on, the battery is {so} {w}.",
        "After {weeks} the battery seems {so} {w}.",
        "I kept a log of the charge, and I would call the battery {w}.",
        "The battery they put in is {w}, if not {v}.",
        "I took them on {trip}, and the battery was {w}.",
        "In cold weather the battery turned out {w} and {v}.",
    ),
}

OPENERS: Final = (
    "I bought these for {purpose}.",
    "These replaced a pair that I left {where}.",
    "My {kin} has the same model and told me about it.",
    "I ordered them in {month}, and they came within {days}.",
    "I have had them for {weeks} now.",
    "They were a present from my {kin}.",
    "I use them mostly {where}.",
    "This is my {ordinal} pair of this brand.",
    "I needed something for {purpose} and picked these.",
    "I read about them in {month} and waited {weeks} before I ordered.",
    "Some notes after {weeks} of use.",
    "My {kin} and I share these.",
    "We got two pairs, one for me and one for my {kin}.",
    "I write this after {span} with them {where}.",
    "I had read little about headphones before I got these.",
    "A colleague had a pair {where}, so I ordered one too.",
)

ASIDES: Final = (
    "The box also holds a cable and a small pouch.",
    "Pairing with my phone took {minutes}.",
    "The manual comes in {ordinal_count} languages.",
    "The buttons sit on the {side} side.",
    "I will report back in {month}.",
    "The app asked for an update on the first evening.",
    "My {kin} borrowed them for {days}.",
    "They connect to the laptop and the tablet as well.",
    "I keep them {place}.",
    "The cable is about the length of my arm.",
    "If anything changes, I will update this.",
    "I have not tried the microphone yet.",
    "The plug is the usual small one.",
    "Setting them up took {minutes} {where}.",
    "They were packed in plain cardboard.",
    "My {kin} wanted to know how they compare with the older model.",
    "So far I have used them {where} and for {purpose}.",
    "I switched off the voice that tells you the time.",
    "There is a small light on the {side} cup.",
    "The pouch now lives {place}.",
    "I play one album on them most evenings.",
    "That is what I can say after {weeks}.",
    "The {side} cup carries the controls.",
    "The lid of the box closes with a magnet.",
)

HEADLINES: Final = (
    "Notes after {weeks}",
    "My {ordinal} pair of this brand",
    "Used for {purpose}",
    "After {weeks} {where}",
    "What I found after {span}",
    "Shared with my {kin}",
    "Ordered in {month}",
    "{where}, most days",
)

SLOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "so": ("", "", "", "really", "truly", "simply", "honestly", "decidedly", "frankly"),
    "genre": ("jazz", "folk", "metal", "piano music", "hip hop", "chamber music", "reggae", "opera"),
    "span": ("an hour", "three hours", "a whole morning", "an afternoon", "half a day", "a full day"),
    "weeks": ("two weeks", "a month", "six weeks", "three months", "half a year", "ten days", "a winter"),
    "days": ("two days", "three days", "four days", "a week", "nine days"),
    "minutes": ("a minute", "two minutes", "five minutes", "about a quarter of an hour"),
    "where": (
        *("on the train", "in the office", "at the gym", "on the bus", "in the kitchen"),
        *("at home", "in the garden", "in the library", "at work"),
    ),
    "place": ("in the hall", "on a hook by the door", "in my bag", "in a drawer", "next to the screen"),
    "purpose": (
        *("video calls", "my way to work", "practising the piano", "long walks", "studying"),
        *("audio books", "housework", "the evening news", "editing films"),
    ),
    "kin": ("brother", "sister", "wife", "husband", "son", "daughter", "father", "neighbour", "flatmate"),
    "month": ("January", "March", "April", "June", "July", "September", "October", "November"),
    "ordinal": ("first", "second", "third", "fourth"),
    "ordinal_count": ("six", "eight", "nine", "eleven", "twelve"),
    "side": ("left", "right"),
    "colour": ("black", "white", "dark green", "navy", "silver", "sand", "wine red"),
    "trip": (
        *("a train ride across the country", "the night bus", "a flight to Lisbon", "a weekend hike"),
        *("a two-day drive", "a boat trip", "a business trip"),
    ),
    "brand": ("Corvane", "Halden", "Tessel", "Larkfield", "Quillon", "Brevik", "Ansgar", "Navarre"),
    "kind": ("over-ear", "on-ear", "closed-back", "folding"),
    "link": ("a Bluetooth link", "a cable and Bluetooth", "a wireless dongle", "two cables"),
    "extra": ("a microphone", "noise cancelling", "a travel case", "a spare pair of pads"),
}

_CONSISTENT_SLOTS: Final = frozenset({"weeks", "kin", "colour", "ordinal", "purpose", "kind", "genre"})
"""Slots that keep their filler within a text, which would contradict itself otherwise."""

TITLE: Final = "{brand} {number} {kind} headphones"
DESCRIPTIONS: Final = (
    "Headphones of the {kind} type with {link} and {extra}. Sold in {colour}.",
    "With {link}, {extra} and a printed manual. The colour is {colour}.",
    "{kind} model in {colour}. Comes with {link} and {extra}.",
    "A {colour} {kind} pair with {link}. It has {extra}; a manual is in the box.",
)
SLOT: Final = re.compile(r"\{(\w+)\}")
"""A blank of a template; {w} and {v} are for planted words, the others for SLOTS."""


@dataclass(frozen=True)
class PlantedWord:
    """Opinion word of a synthetic text."""

    aspect: int
    """Index into ASPECTS."""
    positive: bool
    word: str


class ReviewWriter:
    """Random generator of review texts and item descriptions.

    Parameters
    ----------
    rng
        Source of all draws; the same state gives the same texts.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._fillers: dict[str, str] = {}

    def review(self, opinions: Sequence[tuple[int, bool]], asides: int) -> tuple[str, list[PlantedWord]]:
        """Generate a review: an opener, a sentence for each opinion, and neutral sentences among them.

        No template is used twice.

        Parameters
        ----------
        opinions
            Pairs (index of the aspect, whether it is praised).
        asides
            Number of neutral sentences.

        Returns
        -------
        The text, and its planted words in order.
        """
        self._fillers = {}
        parts: list[tuple[str, list[PlantedWord]]] = []
        used: set[str] = set()
        for aspect, positive in opinions:
            template = self._pick([text for text in OPINIONS[ASPECTS[aspect]] if text not in used])
            used.add(template)
            taken = [word.word for _, planted in parts for word in planted]
            parts.append(self._opinion(template, aspect, positive, taken))
        for index in self._rng.choice(len(ASIDES), asides, replace=False).tolist():
            position = int(self._rng.integers(1, len(parts) + 1))
            parts.insert(position, (self._fill(ASIDES[index]), []))
        parts.insert(0, (self._fill(self._pick(OPENERS)), []))
        return " ".join(text for text, _ in parts), [word for _, planted in parts for word in planted]

    def headline(self) -> str:
        """Generate a neutral summary line."""
        return self._fill(self._pick(HEADLINES))

    def item(self, number: int) -> tuple[str, str]:
        """Generate the title (unique by number) and the neutral description of an item."""
        self._fillers = {}
        return self._fill(TITLE, number=f"H{number}"), self._fill(self._pick(DESCRIPTIONS))

    def _opinion(
        self, template: str, aspect: int, positive: bool, taken: list[str]
    ) -> tuple[str, list[PlantedWord]]:
        """A sentence of the template, and its planted words, which differ from those taken."""
        words = [word for word in LEXICON[ASPECTS[aspect]][0 if positive else 1] if word not in taken]
        count = 2 if "{v}" in template else 1
        chosen = [words[n] for n in self._rng.choice(len(words), count, replace=False).tolist()]
        text = self._fill(template, **dict(zip("wv", chosen, strict=False)))
        return text, [PlantedWord(aspect, positive, word) for word in chosen]

    def _fill(self, template: str, **words: str) -> str:
        text = SLOT.sub(lambda slot: words.get(slot[1]) or self._filler(slot[1]), template)
        text = " ".join(text.split())
        return text[0].upper() + text[1:]

    def _filler(self, name: str) -> str:
        if name not in _CONSISTENT_SLOTS:
            return self._pick(SLOTS[name])
        if name not in self._fillers:
            self._fillers[name] = self._pick(SLOTS[name])
        return self._fillers[name]

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self._rng.integers(len(choices)))]
