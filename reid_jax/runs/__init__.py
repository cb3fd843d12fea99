"""The folder of a run: settings, `run.json`, checkpoints, metrics, restoring."""
