"""Item-item terms of the score, and their selection on validation."""
