"""Strict checks of the JSON that benchmarks write, against a schema."""

import datetime
import math

VERSIONS = dict.fromkeys(("python", "jax", "jaxlib", "flax", "optax", "numpy"), str)


def check(value, schema, where="record"):
    """Fail if JSON does not match the schema: order of keys, exact types, finite numbers.

    Args:
        value: the JSON value.
        schema: a type; None; a dict of schemas by key; a list with the schema of all its items; or
            a tuple of alternatives, of which one has to match. A type written `{float}` means
            numbers above 0.
        where: the name of the value in messages.
    """
    if isinstance(schema, tuple):
        failures = []
        for alternative in schema:
            try:
                return check(value, alternative, where)
            except AssertionError as failure:
                failures.append(str(failure))
        raise AssertionError("; ".join(failures))
    if isinstance(schema, dict):
        assert isinstance(value, dict), f"{where} is {value!r}, no object"
        assert list(value) == list(schema), f"{where} has the keys {list(value)}"
        for key in schema:
            check(value[key], schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), f"{where} is {value!r}, no list"
        assert value, f"{where} is empty"
        for i, element in enumerate(value):
            check(element, schema[0], f"{where}[{i}]")
    elif schema is None:
        assert value is None, f"{where} is {value!r}, not null"
    elif isinstance(schema, set):
        (number,) = schema
        check(value, number, where)
        assert value > 0, f"{where} is {value}"
    else:
        assert type(value) is schema, f"{where} is {value!r}, no {schema.__name__}"
        assert schema is not float or math.isfinite(value), f"{where} is {value}"


def check_record(content, settings, result):
    """Fail if a record does not match `benchmarks.output.record`.

    Args:
        content: the record.
        settings: the schema of its settings.
        result: the schema of each of its results.
    """
    # Packages of other programs follow; older files have null for those that were missing.
    others = list(content["versions"])[len(VERSIONS) :]
    versions = VERSIONS | dict.fromkeys(others, (str, None))
    record = {
        **{"command": str, "date": str, "commit": (str, None), "device": str, "platform": str},
        "cores": {int},
        **{"versions": versions, "settings": settings, "results": [result]},
    }
    check(content, record)
    assert datetime.datetime.fromisoformat(content["date"]).utcoffset() == datetime.timedelta(0)
