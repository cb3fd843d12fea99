import math

import pytest

from tests.benchmarks.schema import check

SCHEMA = {"name": str, "seconds": [{float}], "peak": ({int}, None)}
GOOD = {"name": "a", "seconds": [1.5], "peak": None}


def test_what_fits():
    check(GOOD, SCHEMA)
    check(GOOD | {"peak": 3}, SCHEMA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1}, "record has the keys"),
        ({"name": 1}, "record.name is 1, no str"),
        ({"seconds": []}, "record.seconds is empty"),
        ({"seconds": {}}, "record.seconds is {}, no list"),
        ({"seconds": [1]}, r"record.seconds\[0\] is 1, no float"),
        ({"seconds": [1.0, math.inf]}, r"record.seconds\[1\] is inf"),
        ({"seconds": [0.0]}, r"record.seconds\[0\] is 0.0"),
        ({"peak": True}, "record.peak is True, no int; record.peak is True, not null"),
        ({"peak": 0}, "record.peak is 0; "),
    ],
)
def test_what_does_not(change, message):
    with pytest.raises(AssertionError, match=message):
        check(GOOD | change, SCHEMA)
    reordered = {key: GOOD[key] for key in reversed(GOOD)}
    with pytest.raises(AssertionError, match="record has the keys"):
        check(reordered, SCHEMA)
