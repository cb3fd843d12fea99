"""`python -m reid_jax.reproduce TABLE`: the papers' tables, published and measured side by side."""
