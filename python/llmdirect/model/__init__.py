"""DIRECT: parameters, training view, leave-one-out scores."""
