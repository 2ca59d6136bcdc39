"""Servers that lease from one real store, asked without HTTP."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.support.limit_desk import catalogue
from tests.support.valkey import ScriptedStore, Store
from tests.support.waiting import eventually

from torana.caller import Caller
from torana.catalog.records import LimitRecord
from torana.clock import Clock
from torana.limits.hold import Hold
from torana.limits.leases import Leases
from torana.limits.limits import Limits
from torana.limits.reached import LimitReached
from torana.limits.rules import Call
from torana.limits.spent import Spent
from torana.limits.table import Table
from torana.telemetry.metrics import Known, Metrics


class Server:
    """One server's limits; `kill` it, or stop it well."""

    def __init__(
        self,
        store: Store | ScriptedStore,
        *limits: str | LimitRecord,
        port: int = 0,
        timeout_s: float = 5,
        workers: int = 1,
        clock: Clock | None = None,
        table: Table | None = None,
    ) -> None:
        """`table`: that of another worker of the same server."""
        url = f"redis://127.0.0.1:{port}/0" if port else store.url
        self.table, self.clock, self.metrics = table or Table(1024), clock or Clock(), Metrics(Known())
        self.leases = Leases(
            self.table, url, self.clock, self.metrics, timeout_s=timeout_s, workers=workers, replicas=0
        )
        self.reload(*limits)

    def reload(self, *limits: str | LimitRecord) -> None:
        self.limits = Limits(catalogue(*limits), self.leases, self.clock, self.metrics)
        self.leases.give_back()

    async def start(self) -> "Server":
        self.leases.start()
        await self.is_up()
        return self

    async def is_up(self, is_so: bool = True) -> None:
        async def is_as_wanted() -> bool:
            return self.leases.state[0] is is_so

        await eventually(is_as_wanted)

    async def ask(self, body_bytes: int = 0, **spent: int) -> Hold | None:
        call = Call(Caller(instance_id="acme"), "mia", model="m")
        try:
            return await self.limits.hold(call, lambda: Spent(**{"cost": 0, **spent}), body_bytes)
        except LimitReached:
            return None

    async def get(self, **spent: int) -> Hold:
        """As `ask`, for a call that has to pass."""
        hold = await self.ask(**spent)
        assert hold is not None
        return hold

    def settle(self, hold: Hold, **spent: int) -> None:
        self.limits.settle(hold, Spent(**{"cost": 0, **spent}))

    async def kill(self) -> None:
        """Without a last word."""
        await self.leases._line.aclose()
        await self.leases.aclose()


@asynccontextmanager
async def servers(
    store: Store, count: int, *limits: str | LimitRecord, timeout_s: float = 5
) -> AsyncIterator[list[Server]]:
    store.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        found = [await Server(store, *limits, timeout_s=timeout_s).start() for _ in range(count)]
        for server in found:
            stack.push_async_callback(server.leases.aclose)
        yield found


async def left_of(store: Store, limit: str | LimitRecord) -> int:
    """What a server that has nothing to do with the others can take, one by one or by the thousand."""
    record = limit if isinstance(limit, LimitRecord) else LimitRecord(name="limit-0", limit=limit)
    exact = LimitRecord(name=record.name, limit=record.limit, exact=True, burst=record.burst)
    server = await Server(store, exact).start()
    taken = 0
    for step in (100_000, 10_000, 1_000, 100, 10, 1):
        while (hold := await server.ask(input_tokens=step)) is not None:
            taken += step if hold.met.rules[0].is_metered else 1
    await server.kill()
    return taken
