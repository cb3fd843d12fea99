"""A run's descriptor network as files that need neither this package nor Flax.

    reid-jax export --workdir=runs/pmm exported

writes StableHLO, which JAX alone loads, and ONNX. Both take uint8 images, any number of them, and
hold weights, normalisation and what the recipe's `eval` does to descriptors.
"""
