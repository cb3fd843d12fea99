from reid_jax.configs import common

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def recipe(root, **leaves):
    config = common.recipe().data
    config.root, config.on_bad_image, config.skip_limit = str(root), "skip", 0.3
    config.update(leaves)
    return config


def spoil(folder, start):
    """Empty the images whose names begin with `start`, and return their paths."""
    paths = sorted(path for path in folder.iterdir() if path.name.startswith(start))
    for path in paths:
        path.write_bytes(b"")
    return [str(path) for path in paths]
