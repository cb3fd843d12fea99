import numpy as np

from reid_jax.data.synthetic.people import person


def test_people_are_functions_of_seed_and_number():
    assert person(0, "person", 7) == person(0, "person", 7)
    everybody = [person(s, k, n) for s in (0, 1) for k in ("person", "x") for n in range(30)]
    assert len(set(everybody)) == len(everybody)


def test_many_people_share_their_clothes_colours():
    """The colours of clothes do not identify a person."""
    everybody = [person(0, "person", n) for n in range(200)]

    def clothes(who):
        return np.array([who.upper.fabric.base, who.lower.fabric.base])

    alike = sum(
        any(np.abs(clothes(a) - clothes(b)).max() < 0.1 for b in everybody[:32] if b is not a)
        for a in everybody[:32]
    )
    assert 16 <= alike <= 31
    kinds = {b.kind for who in everybody for b in who.bags}
    assert kinds == {"backpack", "shoulder", "hand"}
    assert {who.lower.kind for who in everybody} == {"trousers", "skirt"}
    assert {p.side for who in everybody for p in who.upper.prints} == {"front", "back"}
