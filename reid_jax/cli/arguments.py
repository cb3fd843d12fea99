"""Types of arguments that several programs take, for argparse."""

import argparse
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """The type of a whole number of at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return read
