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
# # Train, evaluate, look
#
# This notebook trains a tiny PMM on synthetic pedestrians, scores it, and looks at what it has learnt. It takes about a
# minute on two CPU cores. Open it with [Jupytext](https://jupytext.readthedocs.io), or run it as a plain Python file.

# %%
# %matplotlib inline
import json
import pathlib
import tempfile

import numpy as np
from PIL import Image

import reid_jax
from reid_jax import visualize
from reid_jax.configs import pmm_synthetic
from reid_jax.data import datasets
from reid_jax.evaluation.descriptor_sets import Descriptors
from reid_jax.evaluation.ranking import evaluate_ranking, nearest
from reid_jax.programs.train import train

folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## The recipe
#
# A recipe holds every setting of a run. The word `small` chooses a network and a dataset for tests; a few settings make them
# large enough to learn something. Every setting is described in [Settings](../config.md).

# %%
config = pmm_synthetic.get_config("small")
config.data.root = str(folder / "pedestrians")
config.data.loader = "memory"
config.data.synthetic.train_identities = 24
config.data.synthetic.test_identities = 8
config.model.trunk.width = 8
config.epochs = 30
config.eval.every_epochs = 10
config.optim.milestones = (22, 27)
config.log.every_steps = 10

# %% [markdown]
# ## The people
#
# The dataset is drawn on first use. Each row is one person, seen by several cameras in several poses, lights and degrees of
# occlusion. The most salient clue of a person, a print or a bag, is often hidden in another view.

# %%
dataset = datasets.load(config.data)
print(f"{len(dataset.train)} images to train on, of {dataset.train.num_identities} identities")
print(f"{len(dataset.query)} queries and {len(dataset.gallery)} gallery images of other people")


def pixels(paths):
    """Images as one array, uint8 (N, H, W, 3)."""
    return np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize((64, 128))) for path in paths]
    )


def sheet(rows):
    """Rows of images as one picture."""
    rows = [np.concatenate(list(pixels(paths)), axis=1) for paths in rows]
    return Image.fromarray(np.concatenate(rows, axis=0))


pids, paths = dataset.train.pids, np.array(dataset.train.paths)
people = [pid for pid in np.unique(pids) if (pids == pid).sum() >= 12][:4]
sheet([paths[pids == pid][:12] for pid in people])

# %% [markdown]
# ## Train
#
# `train` is what `reid-jax train` calls. It writes checkpoints, metrics and curves into its workdir, and would resume from there.

# %%
result = train(config, str(folder / "run"))

# %% [markdown]
# The curves of the run: the losses of the three stages, the learning rate, and the retrieval scores. The untrained network is
# scored first.

# %%
lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
visualize.curves_figure([json.loads(line) for line in lines])

# %% [markdown]
# ## Evaluate
#
# The trained network maps images to descriptors. For each query, the gallery is ranked by Euclidean distance; images of the
# query's own identity under its own camera are ignored. The scores are those that `reid-jax eval` prints.

# %%
model = reid_jax.load(folder / "run")


def describe(split):
    return Descriptors(model.embed(split.paths), split.pids, split.camids)


query, gallery = describe(dataset.query), describe(dataset.gallery)
scores = evaluate_ranking(query, gallery)
for name, score in scores.summary().items():
    print(f"{name:>8}  {score:6.1%}" if isinstance(score, float) else f"{name:>8}  {score}")

# %%
visualize.cmc_figure(scores.cmc)

# %% [markdown]
# ## Look
#
# Some queries and their nearest gallery images. A tick marks the right person.

# %%
shown = np.linspace(0, len(dataset.query) - 1, 4).astype(int)
few = Descriptors(query.features[shown], query.pids[shown], query.camids[shown])
found, distances = nearest(few, gallery, 8)
images = pixels([dataset.query.paths[i] for i in shown])
listed = pixels([dataset.gallery.paths[i] for i in found.ravel()])
visualize.ranked_list_figure(
    images,
    listed.reshape(*found.shape, *listed.shape[1:]),
    gallery.pids[found] == few.pids[:, None],
    distances=distances,
    captions=visualize.Identities(few.pids, few.camids, gallery.pids[found], gallery.camids[found]),
)

# %% [markdown]
# Grad-CAM shows which places of an image support the training identity that the network predicts. PMM has three stages: the
# first sees the whole map, and each later stage learns from maps whose most active blocks were mixed with another person's.

# %%
cams = model.gradcam([dataset.query.paths[i] for i in shown])
visualize.gradcam_figure(images, cams, names=model.stage_names)

# %% [markdown]
# A tiny network after one minute looks at backgrounds as much as at people. [Results](../results.md) has longer runs, and
# [Weights](../weights.md) starts from a trunk that has already learnt to see.
