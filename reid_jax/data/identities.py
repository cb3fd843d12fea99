"""Numbers of identities that do not stand for a person, as in Market-1501."""

import collections
import re
from collections.abc import Mapping, Sequence

from reid_jax.runtime.messages import counted, shown, warn

#: Badly placed boxes, which no search finds.
JUNK = -1

#: Gallery images of other people, which are found but are never a match.
DISTRACTOR = 0

# The (identity, camera) of each image of train, query and gallery.
_People = Sequence[Sequence[tuple[str, str]]]


def warn_of_people_0(layout: str, root: str, people: _People) -> None:
    """Warn of images of the identities 0 and -1 in a layout in which they are people."""
    total = sum(_special(people), collections.Counter())
    if total:
        warn(
            f"people in layout {layout}: {_counts(total)} in {shown(root)}. In layout "
            "market1501, which takes data.folders too, 0 are distractors and -1 is junk"
        )


def warn_of_distractors(layout: str, places: Sequence[str], people: _People) -> None:
    """Warn of images of the identities 0 and -1 in a layout in which they are not people.

    Args:
        layout: its name.
        places: the folders of train, query and gallery.
        people: the images in them.
    """
    special = _special(people)
    # A gallery of Market-1501 always has both, so it is reported only beside another split.
    ends = ("not trained on", "in no score", "in no score as matches")
    for place, counts, end in zip(places, special, ends, strict=True):
        if counts and any(special[:2]):
            warn(
                f"{end}: {_counts(counts)} in {shown(place)}. In layout {layout}, 0 are "
                "distractors and -1 is junk; in layout folder they are people"
            )


def _special(people: _People) -> list[collections.Counter]:
    """The images of the identities 0 and -1 in each split, by identity."""
    return [
        collections.Counter(pid for pid, _ in who if re.fullmatch(r"-1|0+", pid)) for who in people
    ]


def _counts(images: Mapping[str, int]) -> str:
    return " and ".join(
        f"{counted(count, 'image')} of identity {pid}" for pid, count in sorted(images.items())
    )
