"""Data: folder layouts, P x K batches, loaders of images, synthetic pedestrians, augmentation.

Only `tfdata` and `builders` import TensorFlow; everything else works without it.
"""
