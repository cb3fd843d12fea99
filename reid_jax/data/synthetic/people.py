"""People: body, hair, clothes, shoes and bags, drawn at random from everyday ones.

Most people wear one of a few common outfits, so several identities share the style and colours of
their clothes. They then differ in a combination of small clues (hair, sleeves, shoes, build), or in
one salient clue that some views hide: a print on the chest, a backpack, a bag on one side.
"""

from typing import TypeVar

import numpy as np

from reid_jax.data.synthetic.looks import RGB, Bag, Fabric, Lower, Person, Print, Upper
from reid_jax.data.synthetic.streams import stream

T = TypeVar("T")

_SKIN = ((0.94, 0.77, 0.66), (0.88, 0.68, 0.54), (0.78, 0.58, 0.43), (0.55, 0.38, 0.27))
_HAIR = {
    (0.07, 0.06, 0.06): 0.45,
    (0.17, 0.11, 0.08): 0.25,
    (0.33, 0.21, 0.13): 0.14,
    (0.62, 0.46, 0.26): 0.09,
    (0.58, 0.57, 0.56): 0.07,
}
_UPPER = {
    (0.08, 0.08, 0.09): 0.2,  # black
    (0.22, 0.23, 0.25): 0.1,  # charcoal
    (0.11, 0.14, 0.26): 0.14,  # navy
    (0.5, 0.51, 0.53): 0.09,  # grey
    (0.88, 0.88, 0.86): 0.13,  # white
    (0.6, 0.71, 0.84): 0.06,  # light blue
    (0.16, 0.32, 0.6): 0.05,  # blue
    (0.66, 0.12, 0.14): 0.05,  # red
    (0.36, 0.11, 0.16): 0.03,  # burgundy
    (0.29, 0.33, 0.2): 0.05,  # olive
    (0.72, 0.63, 0.49): 0.04,  # beige
    (0.84, 0.6, 0.64): 0.03,  # pink
    (0.86, 0.7, 0.22): 0.015,  # yellow
    (0.1, 0.4, 0.36): 0.015,  # teal
}
_LOWER = {
    (0.09, 0.09, 0.1): 0.32,  # black
    (0.15, 0.19, 0.3): 0.26,  # dark jeans
    (0.33, 0.43, 0.58): 0.13,  # jeans
    (0.3, 0.31, 0.33): 0.1,  # grey
    (0.66, 0.58, 0.45): 0.1,  # khaki
    (0.33, 0.25, 0.19): 0.04,  # brown
    (0.83, 0.82, 0.79): 0.03,  # white
    (0.32, 0.34, 0.22): 0.02,  # olive
}
_OUTFITS = (  # style and colour of the upper garment, colour of the lower
    ("tee", (0.08, 0.08, 0.09), (0.15, 0.19, 0.3)),
    ("tee", (0.88, 0.88, 0.86), (0.15, 0.19, 0.3)),
    ("tee", (0.5, 0.51, 0.53), (0.09, 0.09, 0.1)),
    ("shirt", (0.88, 0.88, 0.86), (0.09, 0.09, 0.1)),
    ("shirt", (0.6, 0.71, 0.84), (0.66, 0.58, 0.45)),
    ("hoodie", (0.11, 0.14, 0.26), (0.09, 0.09, 0.1)),
    ("hoodie", (0.5, 0.51, 0.53), (0.33, 0.43, 0.58)),
    ("jacket", (0.08, 0.08, 0.09), (0.09, 0.09, 0.1)),
)
_COMMON = 0.6  # share of people who wear one of them
_ACCENT = (
    (0.85, 0.85, 0.84),
    (0.1, 0.1, 0.11),
    (0.78, 0.13, 0.13),
    (0.92, 0.72, 0.16),
    (0.14, 0.36, 0.72),
    (0.14, 0.5, 0.28),
    (0.9, 0.45, 0.12),
    (0.5, 0.5, 0.52),
)
_SHOES = {
    (0.08, 0.08, 0.08): 0.42,
    (0.86, 0.86, 0.85): 0.25,
    (0.3, 0.2, 0.13): 0.12,
    (0.45, 0.45, 0.47): 0.09,
    (0.65, 0.12, 0.14): 0.06,
    (0.16, 0.25, 0.55): 0.06,
}
_BAGS = {
    (0.08, 0.08, 0.09): 0.42,
    (0.13, 0.17, 0.32): 0.14,
    (0.38, 0.39, 0.4): 0.1,
    (0.42, 0.27, 0.16): 0.1,
    (0.7, 0.12, 0.14): 0.08,
    (0.16, 0.42, 0.62): 0.06,
    (0.72, 0.62, 0.45): 0.05,
    (0.9, 0.5, 0.12): 0.05,
}


def person(seed: int, kind: str, number: int) -> Person:
    """Draw a person at random.

    Args:
        seed: the dataset's seed.
        kind: "person" for the identities; other people have other kinds.
        number: the number of the person within the kind, at least 0; for identities the pid.

    Returns:
        The same Person for the same arguments, always.
    """
    rng = stream(seed, kind, number)
    woman = rng.random() < 0.48
    height = rng.normal(1.65 if woman else 1.76, 0.065)
    dress = woman and rng.random() < 0.1
    style = _choice(rng, dict(tee=0.36, shirt=0.2, jumper=0.1, hoodie=0.12, jacket=0.16, coat=0.06))
    colours = [_pick(rng, _UPPER), _pick(rng, _LOWER)]
    if rng.random() < _COMMON:
        style, *colours = _OUTFITS[rng.integers(len(_OUTFITS))]
        colours = [_shade(rng, c, 0.015) for c in colours]
    upper = _upper(rng, "tee" if dress else style, colours[0])
    lower = _lower(rng, woman, upper, dress, colours[1])
    tall_boots = lower.kind == "skirt" and rng.random() < 0.35
    shoes = _pick(rng, _SHOES)
    hair = _choice(
        rng,
        dict(bob=0.2, long=0.36, ponytail=0.22, bun=0.1, short=0.12)
        if woman
        else dict(short=0.62, tousled=0.26, bald=0.08, bob=0.04),
    )
    return Person(
        height=float(np.clip(height, 1.48, 1.95)),
        girth=float(np.clip(rng.normal(0.95 if woman else 1.04, 0.11), 0.8, 1.35)),
        shoulders=float(rng.normal(0.92 if woman else 1.03, 0.035)),
        skin=_shade(rng, _SKIN[rng.choice(4, p=(0.35, 0.35, 0.18, 0.12))], 0.03),
        hair=hair,
        hair_colour=_pick(rng, _HAIR),
        hat=_choice(rng, dict(none=0.86, cap=0.09, beanie=0.05)),
        hat_colour=_pick(rng, _UPPER),
        beard=bool(not woman and rng.random() < 0.2),
        glasses=bool(rng.random() < 0.25),
        upper=upper,
        lower=lower,
        shoes=shoes,
        sole=(0.85, 0.85, 0.83) if rng.random() < 0.45 else _scaled(shoes, 0.6),
        boots=0.2 if tall_boots else 0.07 if rng.random() < 0.15 else 0.0,
        bags=_bags(rng, woman),
        stride=float(rng.uniform(0.36, 0.52)),
        elbow=float(rng.uniform(0.15, 0.55)),
    )


def _upper(rng: np.random.Generator, style: str, colour: RGB) -> Upper:
    patterns = {
        "tee": dict(plain=0.76, hoops=0.1, block=0.04, dots=0.03, yoke=0.05, camouflage=0.02),
        "shirt": dict(plain=0.7, checks=0.16, pinstripes=0.14),
        "jumper": dict(plain=0.6, hoops=0.25, block=0.15),
        "hoodie": dict(plain=0.85, block=0.1, camouflage=0.05),
        "jacket": dict(plain=0.78, yoke=0.14, block=0.08),
        "coat": dict(plain=0.9, checks=0.1),
    }[style]
    pattern = _choice(rng, patterns)
    fabric = Fabric(
        base=colour,
        second=_contrast(rng, colour),
        pattern=pattern,
        period=float(
            rng.uniform(0.14, 0.32) if pattern in ("block", "yoke") else rng.uniform(0.05, 0.13)
        ),
        duty=float(rng.uniform(0.25, 0.5)),
    )
    sleeve = {"tee": 0.45, "shirt": 1.0 if rng.random() < 0.6 else 0.5}.get(style, 1.0)
    if style == "tee" and rng.random() < 0.12:
        sleeve = 0.0
    raglan = style in ("tee", "hoodie", "jacket") and rng.random() < 0.08
    front = {
        "shirt": "buttons",
        "hoodie": _choice(rng, dict(zip=0.5, closed=0.5)),
        "jacket": _choice(rng, dict(zip=0.35, open=0.65)),
        "coat": _choice(rng, dict(buttons=0.6, open=0.4)),
    }.get(style, "closed")
    printable = style in ("tee", "hoodie", "jumper", "jacket")
    return Upper(
        fabric=fabric,
        sleeve_colour=_contrast(rng, colour) if raglan else None,
        sleeve=sleeve,
        hem=0.3 if style == "coat" else float(rng.uniform(0.455, 0.5)),
        loose=float(dict(tee=1.04, shirt=1.06, hoodie=1.16, jacket=1.17).get(style, 1.12)),
        front=front,
        inner=_pick(rng, _UPPER),
        hood=style == "hoodie",
        prints=_prints(rng, colour, front) if printable else (),
    )


def _prints(rng: np.random.Generator, cloth: RGB, front: str) -> tuple[Print, ...]:
    prints = []
    if front == "closed" and rng.random() < 0.62:
        prints.append(_print(rng, "front", cloth, small=rng.random() < 0.35))
    if rng.random() < 0.24:
        prints.append(_print(rng, "back", cloth, small=False))
    return tuple(prints)


def _print(rng: np.random.Generator, side: str, cloth: RGB, small: bool) -> Print:
    """A symmetrical emblem, or lines of lettering."""
    if rng.random() < 0.6:
        half = rng.random((rng.integers(4, 7), 3)) < 0.62
        half[:, 0] |= rng.random(len(half)) < 0.5
        cells = np.concatenate([half[:, ::-1], half], axis=1)
    else:
        cells = rng.random((2 * rng.integers(1, 3) + 1, 8)) < 0.75
        cells[1::2] = False
    return Print(
        side=side,
        cells=tuple(tuple(bool(c) for c in row) for row in cells),
        colour=_contrast(rng, cloth),
        left=0.45 if small else 0.0,
        down=float(rng.uniform(0.1, 0.16)),
        cell=0.014 if small else float(rng.uniform(0.028, 0.042)),
    )


def _lower(rng: np.random.Generator, woman: bool, upper: Upper, dress: bool, colour: RGB) -> Lower:
    if upper.hem < 0.4 or not woman:
        kind = "trousers"
    else:
        kind = _choice(rng, dict(trousers=0.72, skirt=0.28))
    short = rng.random() < (0.22 if kind == "trousers" and upper.sleeve < 1 else 0.06)
    if dress:
        kind, fabric = "skirt", upper.fabric
    else:
        pattern = _choice(rng, dict(plain=0.9, checks=0.05, camouflage=0.05))
        fabric = Fabric(colour, _shade(rng, _scaled(colour, 0.6, 0.05), 0.02), pattern, 0.08)
    hem = rng.uniform(0.24, 0.36) if kind == "skirt" else 0.27 if short else rng.uniform(0.03, 0.05)
    striped = kind == "trousers" and not short and rng.random() < 0.14
    return Lower(
        fabric=fabric,
        kind=kind,
        hem=float(hem),
        loose=float(rng.uniform(1.3, 1.5) if short else rng.uniform(1.02, 1.4)),
        side_stripe=_contrast(rng, colour) if striped else None,
        tights=(0.1, 0.09, 0.1) if kind == "skirt" and rng.random() < 0.4 else None,
    )


def _bags(rng: np.random.Generator, woman: bool) -> tuple[Bag, ...]:
    chances = dict(none=0.42, backpack=0.3, shoulder=0.16, hand=0.12)
    if woman:
        chances = dict(none=0.38, backpack=0.2, shoulder=0.24, hand=0.18)
    kind = _choice(rng, chances)
    if kind == "none":
        return ()
    colour = _pick(rng, _BAGS)
    side = 0 if kind == "backpack" else int(rng.choice([-1, 1]))
    return (Bag(kind, side, colour, _contrast(rng, colour), float(rng.uniform(0.8, 1.2))),)


def _scaled(colour: RGB, factor: float, offset: float = 0.0) -> RGB:
    red, green, blue = (factor * c + offset for c in colour)
    return red, green, blue


def _choice(rng: np.random.Generator, chances: dict[T, float]) -> T:
    p = np.array(list(chances.values()))
    return list(chances)[rng.choice(len(p), p=p / p.sum())]


def _pick(rng: np.random.Generator, palette: dict[RGB, float]) -> RGB:
    return _shade(rng, _choice(rng, palette), 0.02)


def _shade(rng: np.random.Generator, colour: RGB, spread: float) -> RGB:
    """The colour, slightly lighter or darker, with a slightly different hue."""
    shifted = np.array(colour) * rng.normal(1, 3 * spread) + rng.normal(0, spread / 2, 3)
    red, green, blue = (float(c) for c in shifted.clip(0.03, 0.95))
    return red, green, blue


def _contrast(rng: np.random.Generator, colour: RGB) -> RGB:
    """An accent colour that differs visibly from the given one."""
    apart = [a for a in _ACCENT if np.abs(np.subtract(a, colour)).max() > 0.25]
    return _shade(rng, apart[rng.integers(len(apart))], 0.02)
