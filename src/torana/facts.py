"""What becomes known of a request on its way through the rooms."""

from typing import Any

from torana.usage.ledger import NO_ORIGIN, Origin


class Facts(dict[str, Any]):
    """Members of the request's access line by their names: every room adds its own.

    What the rooms behind the gateway need to know of the request itself stands beside them, and in no log.
    """

    origin: Origin = NO_ORIGIN
    """The request, until its books are closed."""
    logs_contents = False
    """Its prompts and answers may be logged."""
