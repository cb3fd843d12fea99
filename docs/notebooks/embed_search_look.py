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
# This notebook uses a trained network: it embeds images, keeps the descriptors in a gallery, searches it with filters, recognises
# strangers, and follows people through a video. If you have a run of your own, load that one instead of training the tiny network
# below.

# %%
# %matplotlib inline
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

import reid_jax
from reid_jax import visualize
from reid_jax.configs import baseline_synthetic
from reid_jax.data import datasets
from reid_jax.data.synthetic.clip import draw_clip
from reid_jax.programs.evaluate import evaluate_run
from reid_jax.programs.train import train

folder = pathlib.Path(tempfile.mkdtemp())
config = baseline_synthetic.get_config("small")
config.data.root = str(folder / "pedestrians")
config.data.loader = "memory"
config.data.synthetic.train_identities = 48
config.data.synthetic.test_identities = 12
config.model.trunk.width = 8
config.epochs = 40
config.eval.every_epochs = 40
config.optim.lr = 1e-3
config.optim.decay_from, config.optim.decay_until = 30, 40
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
# the diagonal are people whom the network recognises.

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
# ## Recognise strangers
#
# A search always finds the nearest images, however far away they are. `evaluate_run` does what `reid-jax eval` does: it also measures
# the distances of pairs of one person and of two. `threshold` is then the distance within which a given share of the pairs of two
# people lies, here one in a hundred.

# %%
evaluate_run(config, str(folder / "run"), checkpoint="latest", output=str(folder / "run" / "eval"))
threshold = model.threshold(fpr=1e-2)
print(f"threshold: {threshold:.2f}")

# %% [markdown]
# Now remove one person from the gallery. `within` leaves out all images beyond the threshold. A query that is left without an image
# shows a stranger.

# %%
query_descriptors = model.embed(dataset.query.paths)
stranger = dataset.query.pids[0]
again.remove(identities=stranger)
near = again.search(query_descriptors, k=1).within(threshold)
for i in range(10):
    who = "a stranger" if dataset.query.pids[i] == stranger else f"identity {dataset.query.pids[i]}"
    print(f"{who}: {f'identity {near.pids[i, 0]}' if near.names[i][0] else 'nobody'}")

# %% [markdown]
# A threshold that accepts few wrong people also rejects many right ones. [Verification](../evaluation.md#verification) describes
# how to choose.

# %% [markdown]
# ## Follow
#
# In a video, a tracker decides which box of a frame shows whom. Each track keeps the running average of its descriptors, and boxes
# go to tracks so that the sum of the distances is smallest. A box that is far from all tracks starts a new one.

# %%
clip = draw_clip(seed=0, camid=8, pids=(2, 4, 6))
found = [model.embed_boxes(*frame) for frame in zip(clip.frames, clip.boxes, strict=True)]
between = np.linalg.norm(found[15][:, None] - found[15], axis=2)
farthest = 0.8 * np.median(between[between > 0])  # The people of one frame are different people.

averages = np.empty((0, model.dim), np.float32)
tracks = []
for descriptors in found:
    distances = np.linalg.norm(descriptors[:, None] - averages, axis=2)
    own = np.full(len(descriptors), -1)
    for box, track in zip(*linear_sum_assignment(distances.clip(max=2 * farthest)), strict=True):
        if distances[box, track] < farthest:
            own[box] = track
            averages[track] += 0.1 * (descriptors[box] - averages[track])
    new = np.flatnonzero(own < 0)
    own[new] = len(averages) + np.arange(len(new))
    averages = np.concatenate([averages, descriptors[new]])
    tracks.append(own)

# %% [markdown]
# The centres of all boxes over one frame, with a colour for each track:

# %%
centres = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in clip.boxes])
numbers = np.concatenate(tracks)
figure, axes = plt.subplots(figsize=(9, 5))
axes.imshow(clip.frames[15])
for track in np.unique(numbers):
    axes.plot(*centres[numbers == track].T, "o-", markersize=4, label=f"track {track}")
axes.legend(ncols=4)
axes.set_axis_off()
plt.show()

# %% [markdown]
# [In a tracker](../tracking.md) has this as a class, and what a real tracker does besides. [Search and galleries](../galleries.md)
# describes all options of a search, [Pack and export](../export.md) takes the network out of Python.
