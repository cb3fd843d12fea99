import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import mixing


def brute_force_mask(cam, block, top_k):
    mask = np.ones_like(cam)
    for image in range(len(cam)):
        sums = []
        for top in range(0, cam.shape[1], block[0]):
            for left in range(0, cam.shape[2], block[1]):
                area = cam[image, top : top + block[0], left : left + block[1]]
                sums.append((-area.sum(), top, left))
        for _, top, left in sorted(sums)[:top_k]:
            mask[image, top : top + block[0], left : left + block[1]] = 0
    return mask


def test_mask_of_a_handmade_cam():
    cam = np.zeros((1, 6, 4), np.float32)
    cam[0, 4, 3] = 5.0  # the block of rows 3..5, columns 2..3
    cam[0, 0:3, 0:2] = 0.5  # sums to 3
    cam[0, 0, 2] = 2.0
    want = np.ones((6, 4))
    want[3:6, 2:4] = 0
    np.testing.assert_array_equal(mixing.block_mask(jnp.array(cam), (3, 2), 1)[0], want)
    want[0:3, 0:2] = 0
    np.testing.assert_array_equal(mixing.block_mask(jnp.array(cam), (3, 2), 2)[0], want)


@pytest.mark.parametrize("top_k", [1, 3, 6, 8, 32])
def test_mask_equals_brute_force(rng, top_k):
    cam = rng.integers(0, 4, (5, 24, 8)).astype(np.float32)  # sums tie often
    got = jax.jit(mixing.block_mask, static_argnums=(1, 2))(cam, (3, 2), top_k)
    np.testing.assert_array_equal(got, brute_force_mask(cam, (3, 2), top_k))
    assert np.all((np.asarray(got) == 0).sum(axis=(1, 2)) == top_k * 6)


def test_blocks_that_do_not_tile_name_both_sizes():
    with pytest.raises(ValueError, match=r"blocks of 3x2 .*map of 10x4"):
        mixing.block_mask(jnp.zeros((1, 10, 4)), (3, 2), 1)


@pytest.mark.parametrize("top_k", [0, 9])
def test_top_k_outside_the_blocks_is_an_error(top_k):
    with pytest.raises(
        ValueError, match=r"model\.top_k is ., but a map of 12x4 cells has 8 blocks"
    ):
        mixing.block_mask(jnp.zeros((1, 12, 4)), (3, 2), top_k)


def test_partners_are_of_another_identity_and_uniform(rng):
    labels = np.array([0, 0, 0, 1, 1, 2, 3, 3], np.int32)
    draw = jax.jit(jax.vmap(mixing.partners, in_axes=(0, None)))
    chosen = np.asarray(draw(jax.random.split(jax.random.key(0), 4000), labels))
    assert np.all(labels[chosen] != labels[None, :])
    for image in range(8):
        counts = np.bincount(chosen[:, image], minlength=8)
        others = labels != labels[image]
        expected = 4000 / others.sum()
        # Five standard deviations of a binomial.
        assert np.all(np.abs(counts[others] - expected) < 5 * np.sqrt(expected))


def test_hard_mix_is_equation_2(rng):
    features = rng.normal(size=(4, 6, 4, 3)).astype(np.float32)
    mask = rng.integers(0, 2, (4, 6, 4)).astype(np.float32)
    partner = np.array([2, 3, 0, 1], np.int32)
    want = mask[..., None] * features + (1 - mask[..., None]) * features[partner]
    np.testing.assert_array_equal(mixing.hard_mix(features, mask, partner), want)


def test_gradients_of_a_common_partner_are_summed_in_float32():
    """In bfloat16 a sum of ones would end at 256."""
    features, mask = jnp.zeros((512, 1, 1, 1), jnp.bfloat16), np.zeros((512, 1, 1), np.float32)
    partner = np.full(512, 3, np.int32)
    gradient = jax.grad(lambda f: mixing.hard_mix(f, mask, partner).sum())(features)
    assert gradient.dtype == jnp.bfloat16
    assert gradient[3, 0, 0, 0] == 512
    assert np.count_nonzero(gradient) == 1


def test_a_partner_may_live_on_another_device(rng):
    labels = np.repeat(np.arange(4), 2).astype(np.int32)
    features = rng.normal(size=(8, 3, 2, 5)).astype(np.float32)
    mask = rng.integers(0, 2, (8, 3, 2)).astype(np.float32)
    key = jax.random.key(7)

    def mix(f, m, y, axis_name):
        return mixing.hard_mix(f, m, mixing.partners(key, y, axis_name), axis_name)

    def split(x):
        return x.reshape(4, 2, *x.shape[1:])

    whole = mix(features, mask, labels, None)
    parts = jax.pmap(lambda f, m, y: mix(f, m, y, "batch"), axis_name="batch")(
        split(features), split(mask), split(labels)
    )
    np.testing.assert_array_equal(np.asarray(parts).reshape(features.shape), whole)


def test_cutmix_boxes_are_the_papers(rng):
    """Sides are sqrt(1 - lambda) of the image's, cut off at its border: boxes from the same
    draws."""
    size = (12, 8)
    keys = jax.random.split(jax.random.key(3), 500)
    masks = np.asarray(jax.jit(mixing.cutmix_mask, static_argnums=1)(keys, size))
    for key, mask in zip(keys, masks, strict=True):
        lambda_key, *centre_keys = jax.random.split(key, 3)
        ratio = np.sqrt(np.float32(1) - np.float32(jax.random.uniform(lambda_key)))
        want = np.ones(size)
        bounds = []
        for extent, centre_key in zip(size, centre_keys, strict=True):
            centre = int(jax.random.randint(centre_key, (), 0, extent))
            half = int(extent * ratio) // 2
            bounds.append(slice(max(centre - half, 0), min(centre + half, extent)))
        want[tuple(bounds)] = 0
        np.testing.assert_array_equal(mask, want)


def test_cutmix_takes_the_share_that_its_box_has_inside_the_image():
    """Without the border the share would be 1/2; with it, the share is smaller."""
    size = (96, 64)
    draw = jax.jit(mixing.cutmix_mask, static_argnums=1)
    masks = np.asarray(draw(jax.random.split(jax.random.key(0), 4000), size))
    assert set(np.unique(masks)) == {0.0, 1.0}
    # A side of ratio r keeps r - r^2 / 4 on average; both sides share r, whose square is uniform.
    r = np.sqrt(np.linspace(0, 1, 10001))
    want = np.mean((r - r**2 / 4) ** 2)
    shares = 1 - masks.mean(axis=(1, 2))
    assert abs(shares.mean() - want) < 5 * shares.std() / np.sqrt(len(shares)) + 0.01
    centre = (1 - masks).sum(axis=0)
    assert abs(centre[:48].sum() / centre[48:].sum() - 1) < 0.1


def test_enlarge_repeats_cells(rng):
    mask = rng.integers(0, 2, (2, 3, 2)).astype(np.float32)
    want = np.kron(mask, np.ones((1, 4, 5)))
    np.testing.assert_array_equal(mixing.enlarge(jnp.array(mask), (12, 10)), want)
    with pytest.raises(ValueError, match=r"images of 13x10 pixels .*maps of 3x2 cells"):
        mixing.enlarge(jnp.array(mask), (13, 10))
