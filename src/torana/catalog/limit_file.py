"""`limits.yml`: what is wrong with one of its items, beyond its shape. Names that it mentions: check.py."""

import re
from collections.abc import Iterator

from torana.catalog.document import Document
from torana.catalog.limit_text import EXPECTED, BadLimit, read_limit
from torana.catalog.records import LimitRecord

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)


def wrong_limit(document: Document, record: LimitRecord, index: int) -> Iterator[str]:
    """One line for each problem of the item at `index`."""
    if not _NAME.fullmatch(record.name):
        yield document.problem(
            f"`{record.name[:80]}` is no name of a limit", "expected small letters, digits, _ and -", index, "name"
        )
    try:
        terms = read_limit(record.limit)
    except BadLimit as bad:
        yield document.problem(str(bad), EXPECTED, index, "limit")
        return
    if record.burst < 0 or record.burst > terms.amount:
        yield document.problem(
            f"`burst` is {record.burst}", f"expected 0 to {terms.amount}, the amount of the limit", index, "burst"
        )
    elif record.burst and (terms.is_calendar or not terms.period or terms.unit == "usd"):
        yield document.problem(
            "`burst` spreads calls over seconds, minutes or hours", "expected none for this limit", index, "burst"
        )
