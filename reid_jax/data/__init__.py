"""Data: folder layouts, P x K batches, loaders of images, synthetic pedestrians, augmentation.

TensorFlow is imported by `tfdata` and `builders` alone; everything else works without it.
"""
