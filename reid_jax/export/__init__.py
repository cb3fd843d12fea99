"""A run's descriptor network as files that need neither this package nor Flax.

    reid-jax export --workdir=runs/pmm exported

writes StableHLO, which only JAX loads, and ONNX. Both take any number of uint8 images, and contain
the weights, the normalisation and the post-processing of descriptors in the recipe's `eval`.
"""
