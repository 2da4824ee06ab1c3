"""What a model's aspects are about, and how good they are."""
