"""The former name of `reid_jax.weights` serves the same functions."""

from reid_jax import pretrained, weights


def test_the_former_name_has_what_it_had():
    for name in ("Trunk", "check_fits", "read_trunk", "write_trunk", "write_workdir"):
        assert getattr(pretrained, name) is getattr(weights, name)
