"""JSON that is one line for every reader, and no command for the terminal that shows it."""

import re

_ODD = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
"""DEL, the control letters above it, U+2028 and U+2029: JSON allows them as they are, so its writers leave them."""


def one_line(raw: bytes) -> bytes:
    """The same JSON; letters at which some readers break lines, or terminals obey, are escaped."""
    if raw.isascii() and b"\x7f" not in raw:
        return raw
    return _ODD.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), raw)
