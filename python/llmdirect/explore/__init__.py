"""`llmdirect explore`: a run as web pages, served to one's own machine.

catalogue: names, words and aspects of items; people: whose list it is, and what if; pages and
person_pages, item_pages: HTML; app: addresses, and the headers that forbid foreign scripts.
"""
