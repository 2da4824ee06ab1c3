"""Reviews to a dataset: readers, splits, passages, audits."""
