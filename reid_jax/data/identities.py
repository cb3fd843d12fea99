"""Numbers of identities that are no person's, as Market-1501 has them."""

#: Boxes that no search finds: badly placed ones.
JUNK = -1

#: Gallery images of strangers: found, and never a match.
DISTRACTOR = 0
