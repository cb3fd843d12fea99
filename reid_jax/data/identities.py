"""Numbers of identities that do not stand for a person, as in Market-1501."""

#: Badly placed boxes, which no search finds.
JUNK = -1

#: Gallery images of other people, which are found but are never a match.
DISTRACTOR = 0
