import pytest

from reid_jax.runtime.memory import check_holds


def test_only_what_is_larger_than_the_memory_is_an_error():
    check_holds(2**20, "few bytes", "nothing")
    with pytest.raises(MemoryError, match=r"take 1,073,741,824\.0 GiB, .*: lower a\.leaf$"):
        check_holds(2**60, "all bytes", "a.leaf")
