"""Training and evaluation, each from a recipe to its results."""
