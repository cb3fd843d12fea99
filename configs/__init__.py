"""Recipes, one file each: `get_config(string)` returns the settings of a run."""
