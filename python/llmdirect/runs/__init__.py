"""Training run folders, and recommending from them."""
