"""The colour of cloth at a place on the body: patterns, prints, straps, folds."""

from functools import partial

import numpy as np

from reid_jax.data.synthetic.looks import Bag, Fabric, Person, Print
from reid_jax.data.synthetic.solids import Paint
from reid_jax.data.synthetic.streams import noise

_CHEST = 0.2  # metres, the torso's mean half-width, which turns angles into distances


def solid(colour: tuple[float, float, float]) -> Paint:
    """Paint of one colour, for any solid."""

    def paint(first, *_):
        return np.broadcast_to(np.array(colour, np.float32), (len(first), 3))

    return paint


def dyed(fabric: Fabric, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Colours of a fabric.

    Args:
        fabric: the cloth.
        across: (N,) metres around the body.
        down: (N,) metres from the garment's top.

    Returns:
        (N, 3) float32 in [0, 1].
    """
    p, duty = fabric.period, fabric.duty
    if fabric.pattern == "plain":
        share = np.zeros_like(down)
    elif fabric.pattern == "hoops":
        share = (down / p) % 1 < duty
    elif fabric.pattern == "pinstripes":
        share = 0.8 * ((across / p * 2) % 1 < duty / 2)
    elif fabric.pattern == "checks":
        share = 0.5 * ((down / p) % 1 < duty) + 0.5 * ((across / p) % 1 < duty)
    elif fabric.pattern == "dots":
        share = np.sin(across * 6.3 / p) * np.sin(down * 6.3 / p) > 0.45
    elif fabric.pattern == "block":
        share = down > p
    elif fabric.pattern == "yoke":
        share = down < p
    elif fabric.pattern == "camouflage":
        share = 0.7 * (noise(across * 0.9, down * 0.9) > 0.4)
    else:
        raise ValueError(f"no pattern is called {fabric.pattern!r}")
    share = np.asarray(share, np.float32)[:, None]
    base, second = (np.array(rgb, np.float32) for rgb in (fabric.base, fabric.second))
    return base * (1 - share) + second * share


def folded(colours: np.ndarray, across: np.ndarray, down: np.ndarray, depth: float = 0.09):
    """Lighten and darken cloth at its folds, which run down more than across."""
    return colours * (1 + depth * noise(across * 0.7, down * 0.45)).clip(0.5, 1.5)[:, None]


def leg_paint(person: Person, thigh: bool, side: int, offset: float) -> Paint:
    """Paint for a trouser leg. offset keeps the two legs' folds apart; side is +1 left."""
    lower = person.lower

    def paint(turn, along):
        down = along + (0.2 if thigh else 0.2 + 0.245 * person.height)
        across = turn * 0.08
        colours = dyed(lower.fabric, across, down)
        if lower.side_stripe is not None:
            stripe = np.cos(turn - side * np.pi / 2) > 0.93
            colours = np.where(stripe[:, None], np.array(lower.side_stripe, np.float32), colours)
        return folded(colours, across * 2 + offset, down, 0.13)

    return paint


def sleeve_paint(person: Person, start: float) -> Paint:
    """Paint for a sleeve; start is the metres down from the shoulder where the part begins."""
    upper = person.upper
    fabric = upper.fabric
    if upper.sleeve_colour is not None:
        fabric = Fabric(upper.sleeve_colour, upper.sleeve_colour)

    def paint(turn, along):
        across, down = turn * 0.06, along + start
        return folded(dyed(fabric, across, down), across * 2 + 0.3, down, 0.13)

    return paint


def torso_paint(person: Person) -> Paint:
    """Paint for the upper garment's body, with front, collar, prints and straps."""
    upper = person.upper

    def paint(turn, along):
        across = turn * _CHEST
        colours = folded(dyed(upper.fabric, across, along), across, along)
        left, ahead = np.sin(turn), np.cos(turn)
        set_colour = partial(_set, colours)
        for printed in upper.prints:
            set_colour(_inked(printed, left, ahead, along), printed.colour)
        if upper.front == "open":
            set_colour((ahead > 0) & (np.abs(left) < 0.22 + 0.25 * along), upper.inner)
        if upper.front in ("zip", "buttons"):
            colours[(ahead > 0) & (np.abs(left) < 0.05)] *= 0.6
        neckline = 0.05 + 0.05 * (upper.front == "buttons")
        neck = (ahead > 0) & (np.abs(left) * 0.12 + along < neckline * person.height / 1.7)
        set_colour(neck, upper.inner if upper.front == "open" else person.skin)
        for bag in person.bags:
            set_colour(_strapped(bag, left, ahead, along), tuple(0.8 * c for c in bag.colour))
        return colours

    return paint


def _set(colours: np.ndarray, where: np.ndarray, colour) -> None:
    colours[where] = colour


def _inked(printed: Print, left: np.ndarray, ahead: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The points with ink of a print, (N,) booleans."""
    cells = np.array(printed.cells)
    facing = ahead > 0 if printed.side == "front" else ahead < 0
    row = np.floor((down - printed.down) / printed.cell).astype(int)
    column = np.floor((left - printed.left) * _CHEST / printed.cell + cells.shape[1] / 2)
    column = column.astype(int)
    inside = facing & (row >= 0) & (row < cells.shape[0])
    inside &= (column >= 0) & (column < cells.shape[1])
    return inside & cells[row % cells.shape[0], column % cells.shape[1]]


def _strapped(bag: Bag, left: np.ndarray, ahead: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The points of the torso under a bag's straps, (N,) booleans."""
    if bag.kind == "backpack":
        return (ahead > 0) & (np.abs(np.abs(left) - 0.55) < 0.1) & (down < 0.36)
    if bag.kind == "shoulder":  # from the other shoulder down to the bag
        return np.abs(left * bag.side + 0.5 - down * 2.6) < 0.11
    return np.zeros_like(ahead, bool)
