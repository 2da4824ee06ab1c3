"""HTML pages: explanations, run reports."""
