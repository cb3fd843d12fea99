"""The dataset that a recipe names."""

from reid_jax.data import layouts, synthetic


def load(config) -> layouts.Dataset:
    """Lists the images of `config`, a recipe's `data`; draws synthetic pedestrians on first use.

    Raises:
        FileNotFoundError, ValueError: as `layouts.read`, and where `data.root` is not set.
    """
    if not config.root:
        raise ValueError("data.root is empty: name the dataset's folder, --config.data.root=FOLDER")
    layout = config.layout
    if layout == "synthetic":
        synthetic.write_market1501(config.root, **config.synthetic)
        layout = "market1501"
    pattern, folders = config.pattern or None, config.folders or None
    return layouts.read(layout, config.root, pattern=pattern, folders=folders)
