"""`reid-jax reproduce TABLE`: the papers' tables, published and measured side by side."""
