"""Words, sentences, duplicates and the TF-IDF lexicon of review texts."""
