# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Embed, search, look
#
# This notebook uses a trained network: it embeds images, keeps the descriptors in a gallery, and searches it with filters. If
# you have a run of your own, load that one instead of training the tiny network below.

# %%
# %matplotlib inline
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import reid_jax
from reid_jax import visualize
from reid_jax.configs import baseline_synthetic
from reid_jax.data import datasets
from reid_jax.programs.train import train

folder = pathlib.Path(tempfile.mkdtemp())
config = baseline_synthetic.get_config("small")
config.data.root = str(folder / "pedestrians")
config.data.loader = "memory"
config.data.synthetic.train_identities = 24
config.model.trunk.width = 8
config.epochs = 20
config.eval.every_epochs = 20
config.optim.decay_from, config.optim.decay_until = 15, 20
train(config, str(folder / "run"))

# %% [markdown]
# ## Embed
#
# `load` returns the trained network as a function of images. `embed` takes files, or pixels of any size, and returns one
# descriptor per image.

# %%
model = reid_jax.load(folder / "run")
dataset = datasets.load(config.data)
people = dataset.gallery.take(dataset.gallery.pids > 0)
descriptors = model.embed(people.paths)
print(descriptors.shape, descriptors.dtype)

# %% [markdown]
# The Euclidean distance between two descriptors is small if the network takes two images for the same person. The picture
# shows the distances between the gallery images, sorted by identity. On the diagonal, each image meets itself. Dark squares around
# the diagonal are people whom the network recognises; a network as small as this one shows few.

# %%
order = np.argsort(people.pids, kind="stable")
sorted_descriptors = descriptors[order]
distances = np.linalg.norm(sorted_descriptors[:, None] - sorted_descriptors[None], axis=-1)
figure, axes = plt.subplots(figsize=(6, 5))
figure.colorbar(axes.imshow(distances, cmap="gray"), label="distance")
axes.set(xlabel="gallery image", ylabel="gallery image")
plt.show()

# %% [markdown]
# ## Search
#
# A gallery holds descriptors with names and, if you have them, identities and cameras. Its search is exact.

# %%
gallery = reid_jax.Gallery()
gallery.add(descriptors, pids=people.pids, camids=people.camids, names=people.paths)
print(gallery)


def look(hits, queries):
    """Draw queries and what a search has found for them."""

    def pixels(paths):
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])

    pids = np.array([dataset.query.pids[i] for i in queries])
    names = [name for row in hits.names for name in row]
    found = pixels(names)
    return visualize.ranked_list_figure(
        pixels([dataset.query.paths[i] for i in queries]),
        found.reshape(*hits.indices.shape, *found.shape[1:]),
        hits.pids == pids[:, None],
        distances=hits.distances,
        captions=visualize.Identities(pids, dataset.query.camids[queries], hits.pids, hits.camids),
    )


queries = [0, len(dataset.query) // 2, len(dataset.query) - 1]
features = model.embed([dataset.query.paths[i] for i in queries])
hits = gallery.search(features, k=6)
look(hits, queries)

# %% [markdown]
# The nearest images are often of the query's own camera: the same wall behind another person is easy to find. Ask for other
# cameras only.

# %%
cameras = dataset.query.camids[queries]
hits = gallery.search(features, k=6, camids=cameras, own_camera=False)
look(hits, queries)

# %% [markdown]
# Other filters choose identities or cameras for all queries:

# %%
first = int(gallery.camids[0])
hits = gallery.search(features[0], k=3, cameras=[first])
for name, distance in zip(hits.names[0], hits.distances[0], strict=True):
    print(f"{distance:6.2f}  {pathlib.Path(name).name}")

# %% [markdown]
# ## Keep
#
# A gallery is saved as one safetensors file. `reid-jax search --gallery=FILE` searches it from the command line.

# %%
gallery.save(folder / "people.gallery")
again = reid_jax.Gallery.load(folder / "people.gallery")
print(again, f"{(folder / 'people.gallery').stat().st_size:,} bytes")

# %% [markdown]
# [Search and galleries](../galleries.md) describes all options, [Pack and export](../export.md) takes the network out of Python.
