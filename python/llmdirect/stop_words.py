"""English function words: they are read and counted like all words, but name nothing."""

_WORDS = """
a about after again against all also although am an and any anyway are as at be because been before being
below between both but by can cannot could did do does doing don down during each either else ever every few
for from further get gets got had has have having he her here hers herself him himself his how however i if
in into is it its itself just let may me might mine more most much must my myself neither no nor not now of
off on once one only or other others our ours out over own per quite rather same shall she should since so
some still such than that the their theirs them themselves then there these they thing things this those
though through thus to too under until up upon us very was we were what whatever when where whether which
while who whom whose why will with within without would yet you your yours yourself
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he'd he'll he's i'd i'll i'm i've
isn't it'd it'll it's let's mustn't she'd she'll she's shouldn't that's there's they'd they'll they're
they've wasn't we'd we'll we're we've weren't what's who's won't wouldn't you'd you'll you're you've
"""
STOP_WORDS = frozenset(_WORDS.split())


def is_function_word(word: str) -> bool:
    """Whether a word, in any case and with either apostrophe, names nothing by itself."""
    plain = word.casefold().replace("\u2019", "'")
    return plain in STOP_WORDS or not any(letter.isalnum() for letter in plain)
