"""`major.minor` of the documented product: what an index keeps apart, and what a request asks for."""

import re
from typing import NamedTuple

_LEADING = re.compile(r"\s*v?(\d{1,4})\.(\d{1,4})(?![0-9])", re.ASCII)


class Release(NamedTuple):
    """Ordered: 18.10 comes after 18.9."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def find_release(text: str) -> Release | None:
    """The `X.Y` that `text` begins with: `18.6.1-ee` reads as 18.6; None where there is none."""
    found = _LEADING.match(text)
    return None if found is None else Release(int(found[1]), int(found[2]))


def read_release(text: str) -> Release | None:
    """`X.Y` and nothing else, as people write it in settings and on the command line."""
    found = find_release(text)
    return found if found is not None and text.strip() == str(found) else None
