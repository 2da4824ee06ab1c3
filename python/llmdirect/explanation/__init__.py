"""Why an item is recommended, word by word."""
