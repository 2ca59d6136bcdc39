"""Requests that are answered without a model, and take their place among the limits all the same."""

from collections.abc import Awaitable, Callable

from torana.api.exchange import Exchange, Reply, StreamReply
from torana.caller import Permit
from torana.limits.limits import Limits
from torana.limits.rules import Call
from torana.limits.spent import Spent
from torana.usage.ledger import asked_for


def lookup(permit: Permit, exchange: Exchange) -> Call:
    """As limits see a request that no model will answer."""
    unit_primitive = permit.unit_primitives[0] if permit.unit_primitives else ""
    feature = asked_for(exchange.feature, "", exchange.endpoint)
    return Call(permit.caller, permit.user, unit_primitive, feature=feature)


async def limited(
    limits: Limits, permit: Permit, exchange: Exchange, handle: Callable[[], Awaitable[Reply | StreamReply]]
) -> Reply | StreamReply:
    """The handler's answer, if the limits let it pass; for routes whose call no model will count."""
    hold = await limits.hold(lookup(permit, exchange), Spent, exchange.body_bytes)
    try:
        reply = await handle()
        if hold is not None:
            reply.headers = [*reply.headers, *hold.headers()]
        return reply
    finally:
        limits.settle(hold, Spent(0, 0, 0))
