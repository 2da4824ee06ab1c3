"""Training of DIRECT: losses, epochs, checkpoints, hyperparameter search."""
