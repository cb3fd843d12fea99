"""The parts of a person that are equal in all images: body, hair, clothes, shoes and bags."""

from dataclasses import dataclass

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Fabric:
    """A cloth: a pattern in two colours.

    Attributes:
        base: main colour, RGB in [0, 1].
        second: the pattern's colour.
        pattern: plain, hoops (stripes around), pinstripes (stripes down), checks, dots, block (the
            second colour below a line), yoke (the second colour above it), camouflage.
        period: metres per repeat; for block and yoke the line's distance from the top.
        duty: share of a repeat that has the second colour.
    """

    base: RGB
    second: RGB
    pattern: str = "plain"
    period: float = 0.1
    duty: float = 0.5


@dataclass(frozen=True)
class Print:
    """A printed figure on the upper garment.

    Attributes:
        side: front or back.
        cells: (rows, columns) booleans, True for ink.
        colour: the ink.
        left: position of the middle, from 0 in the middle to 1 at the left edge.
        down: metres from the shoulders to the print's top.
        cell: metres per cell.
    """

    side: str
    cells: tuple[tuple[bool, ...], ...]
    colour: RGB
    left: float
    down: float
    cell: float


@dataclass(frozen=True)
class Upper:
    """An upper garment. Lengths are shares of the body's height.

    Attributes:
        fabric: the cloth of body and sleeves.
        sleeve_colour: colour of the sleeves if it differs, otherwise None.
        sleeve: 0 without, 0.5 to the elbow, 1 to the wrist.
        hem: height of the lower hem above the ground.
        loose: width, 1 is tight.
        front: closed, buttons, zip or open.
        inner: colour of the layer below an open front, and of collar or neckline.
        hood: whether a hood lies on the back.
        prints: the prints on it.
    """

    fabric: Fabric
    sleeve_colour: RGB | None
    sleeve: float
    hem: float
    loose: float
    front: str
    inner: RGB
    hood: bool
    prints: tuple[Print, ...]


@dataclass(frozen=True)
class Lower:
    """A lower garment.

    Attributes:
        fabric: the cloth.
        kind: trousers or skirt.
        hem: height of the lower hem above the ground, share of the body's height.
        loose: width, 1 is tight.
        side_stripe: colour of a stripe down the outer sides, or None.
        tights: colour of the bare leg below it, None for skin.
    """

    fabric: Fabric
    kind: str
    hem: float
    loose: float
    side_stripe: RGB | None
    tights: RGB | None


@dataclass(frozen=True)
class Bag:
    """A carried bag.

    Attributes:
        kind: backpack, shoulder, hand.
        side: +1 left, -1 right (0 for a backpack).
        colour: colour of the bag.
        second: colour of its pocket or label.
        size: 1 is usual.
    """

    kind: str
    side: int
    colour: RGB
    second: RGB
    size: float


@dataclass(frozen=True)
class Person:
    """One identity: everything that is equal in all images.

    Attributes:
        height: metres.
        girth: width of the body, 1 is average.
        shoulders: width of the shoulders, 1 is average.
        skin: RGB in [0, 1].
        hair: bald, short, tousled, bob, long, ponytail or bun.
        hair_colour: RGB.
        hat: none, cap or beanie.
        hat_colour: RGB.
        beard: whether the lower face is hair-coloured.
        glasses: whether dark-rimmed glasses are worn.
        upper: the upper garment.
        lower: the lower garment.
        shoes: RGB.
        sole: RGB.
        boots: height of the shaft, share of the body's height, 0 for shoes.
        bags: the carried bags.
        stride: amplitude of the gait, radians at the hip.
        elbow: how far the arms are bent, radians.
    """

    height: float
    girth: float
    shoulders: float
    skin: RGB
    hair: str
    hair_colour: RGB
    hat: str
    hat_colour: RGB
    beard: bool
    glasses: bool
    upper: Upper
    lower: Lower
    shoes: RGB
    sole: RGB
    boots: float
    bags: tuple[Bag, ...]
    stride: float
    elbow: float
