"""Token embeddings on disk: shards, stores, formats."""
