import numpy as np
import pytest
from PIL import Image

from reid_jax.data import loaders, pipeline
from reid_jax.data.sampler import IdentitySampler

LABELS = np.repeat(np.arange(5, dtype=np.int32), 3)


@pytest.fixture(params=["memory", "tfdata"])
def opened(request, tmp_path):
    """Fifteen images; image i has grey level i."""
    paths = [str(tmp_path / f"{i}.png") for i in range(15)]
    for i, path in enumerate(paths):
        Image.new("RGB", (4, 6), (i, i, i)).save(path)
    return loaders.open_images(paths, (6, 4), request.param)


def test_train_batches_show_what_the_sampler_says(opened):
    sampler = IdentitySampler(LABELS, 2, 2, seed=0)
    batches = list(pipeline.train_batches(opened, LABELS, sampler, 0, 9))
    assert len(batches) == 9
    for step, batch in enumerate(batches):
        assert batch["image"].shape == (4, 6, 4, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], sampler(step))
        np.testing.assert_array_equal(batch["label"], LABELS[sampler(step)])


def test_train_batches_start_at_any_step(opened):
    sampler = IdentitySampler(LABELS, 2, 2, seed=0)
    whole = list(pipeline.train_batches(opened, LABELS, sampler, 0, 9))
    rest = list(pipeline.train_batches(opened, LABELS, sampler, 5, 9))
    assert len(rest) == 4
    for one, other in zip(whole[5:], rest, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])
    assert list(pipeline.train_batches(opened, LABELS, sampler, 9, 9)) == []


def test_no_earlier_step_is_touched(opened):
    sampler = IdentitySampler(LABELS, 2, 2, seed=0)
    asked = []

    def spy(step):
        asked.append(step)
        return sampler(step)

    (batch, _) = pipeline.train_batches(opened, LABELS, spy, 10**8, 10**8 + 2)
    assert set(asked) == {10**8, 10**8 + 1}
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], sampler(10**8))


def test_hosts_share_a_batch(opened):
    sampler = IdentitySampler(LABELS, 4, 1, seed=0)
    whole = list(pipeline.train_batches(opened, LABELS, sampler, 0, 3))
    for host in range(2):
        part = slice(2 * host, 2 * host + 2)
        mine = pipeline.train_batches(opened, LABELS, lambda step, p=part: sampler(step)[p], 0, 3)
        for one, other in zip(whole, mine, strict=True):
            np.testing.assert_array_equal(one["image"][part], other["image"])
            np.testing.assert_array_equal(one["label"][part], other["label"])


@pytest.mark.parametrize(("count", "size"), [(15, 4), (15, 5), (15, 1), (7, 3), (2, 8), (15, 16)])
def test_eval_batches_lose_no_image(opened, count, size):
    seen = []
    sizes = [size] * -(-count // size)
    for batch, mask in pipeline.eval_batches(opened, count, sizes):
        assert batch.shape == (size, 6, 4, 3)
        assert mask.shape == (size,)
        assert mask.dtype == bool
        seen.extend(batch[mask][:, 0, 0, 0])
        assert (batch[~mask] == count - 1).all()
    assert seen == list(range(count))
