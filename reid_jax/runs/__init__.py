"""A run's folder: settings, what the run is, checkpoints, metrics, restoring."""
