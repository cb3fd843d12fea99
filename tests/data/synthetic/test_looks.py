"""The appearance of drawn people keeps to what `looks` documents."""

import dataclasses

import pytest

from reid_jax.data.synthetic.people import person

PATTERNS = {"plain", "hoops", "pinstripes", "checks", "dots", "block", "yoke", "camouflage"}
HAIR = {"bald", "short", "tousled", "bob", "long", "ponytail", "bun"}
PEOPLE = [person(0, "person", number) for number in range(200)]


def test_words_are_the_documented_ones():
    for who in PEOPLE:
        assert who.hair in HAIR
        assert who.hat in {"none", "cap", "beanie"}
        assert who.lower.kind in {"trousers", "skirt"}
        assert who.upper.front in {"closed", "buttons", "zip", "open"}
        assert {who.upper.fabric.pattern, who.lower.fabric.pattern} <= PATTERNS
        assert {bag.kind for bag in who.bags} <= {"backpack", "shoulder", "hand"}
        assert all(bag.side == 0 if bag.kind == "backpack" else bag.side for bag in who.bags)
        assert {mark.side for mark in who.upper.prints} <= {"front", "back"}


def test_sizes_are_a_person_s():
    for who in PEOPLE:
        assert 1.4 < who.height < 2.1
        assert 0 <= who.lower.hem < who.upper.hem < 1
        assert 0 <= who.upper.sleeve <= 1
        assert all(0 <= channel <= 1 for channel in who.skin + who.shoes + who.hair_colour)


def test_a_person_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PEOPLE[0].height = 1.0
    assert hash(PEOPLE[0]) == hash(person(0, "person", 0))
