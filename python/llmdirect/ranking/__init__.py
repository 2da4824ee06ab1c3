"""Score tables, exact top-k ranking and ranking metrics."""
