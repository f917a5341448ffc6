"""What the reader thinks of an answer: right, wrong, or that it cannot tell."""

from collections.abc import Iterable

Opinion = bool | None  # None where the trees are not understood well enough


def all_of(opinions: Iterable[Opinion]) -> Opinion:
    unsure = False
    for opinion in opinions:
        if opinion is False:
            return False
        unsure = unsure or opinion is None
    return None if unsure else True
