"""A day on which everything around a gateway breaks again and again, as a seed says (promises OV11 and OV14).

A vendor that charges, a receiver of usage records and a store for limits, each behind a proxy that spoils connections;
an issuer that goes down; workers that are killed; catalogues that are loaded anew; clients that leave in the middle.
"""

import asyncio
import json
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from tests.support.fault_proxy import FaultProxy
from tests.support.issuer import Failure
from tests.support.served import Served
from tests.support.town import Town, kill_one
from tests.support.usage_load import Load
from tests.support.valkey import Store

STREAMS = 40
"""That an instance may have at once."""
_LIMITS = [
    {"name": "requests", "limit": "10M per minute per instance", "exact": True},
    {"name": "leased", "limit": "10M per minute per user"},
    {"name": "tokens", "limit": "1000M tokens per day per instance"},
    {"name": "streams", "limit": f"{STREAMS} concurrent streams per instance"},
]


class SpoiltTown(Town):
    """`Town` with a store beside it, and proxies between the gateway and all three."""

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder)
        self.store = store
        self.proxies: dict[str, FaultProxy] = {}

    @property
    def env(self) -> dict[str, str]:
        env = super().env
        vendor, sink, store = (f"http://127.0.0.1:{self.proxies[name].port}" for name in ("vendor", "sink", "store"))
        overlay = Path(env["AIGW_CATALOG"])
        (overlay / "limits.yml").write_text(json.dumps(_LIMITS))
        sinks = (overlay / "sinks.yml").read_text()
        (overlay / "sinks.yml").write_text(sinks.replace(self.sink.server.url, sink))
        env = {name: value.replace(self.provider.url, vendor) for name, value in env.items()}
        return env | {
            "AIGW_REDIS_URL": store.replace("http", "redis"),
            "AIGW_TIMEOUTS__FIRST_BYTE_S": "1",
            "AIGW_TIMEOUTS__IDLE_S": "1",
            "AIGW_TIMEOUTS__CONNECT_S": "0.5",
        }

    async def start(self) -> None:
        await super().start()
        ports = {"vendor": self.provider.server.port, "sink": self.sink.server.port, "store": self.store.port}
        self.proxies = {name: FaultProxy(port) for name, port in ports.items()}
        for proxy in self.proxies.values():
            await proxy.start()

    async def aclose(self) -> None:
        for proxy in self.proxies.values():
            await proxy.aclose()
        await super().aclose()


class Day:
    """Breaks one thing after another, several at once; what it does depends on the seed alone."""

    def __init__(self, town: SpoiltTown, gateway: Served, load: Load, seed: int) -> None:
        self.town = town
        self.gateway = gateway
        self.load = load
        self.done: list[str] = []
        """What was broken, in order."""
        self.kills = 0
        self._chance = random.Random(seed)

    async def run(self, seconds: float) -> None:
        """All is whole again when it returns."""
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for name in self.town.proxies:
                    group.create_task(self._spoil(name, random.Random(self._chance.random())))
                for breaks in (self._issuer, self._store, self._kill, self._reload, self._leave):
                    group.create_task(self._again(breaks, random.Random(self._chance.random())))
        except TimeoutError:
            pass
        for proxy in self.town.proxies.values():
            _heal(proxy)
        self.town.issuer.failure = ""
        self.town.store.thaw()

    async def _spoil(self, name: str, chance: random.Random) -> None:
        proxy = self.town.proxies[name]
        while True:
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            what = chance.choice(("silent", "refuses", "slow", "reset", "close"))
            self.done.append(f"{name} {what}")
            match what:
                case "silent":
                    proxy.is_silent = True
                case "refuses":
                    proxy.refuses = True
                case "slow":
                    proxy.latency_s = chance.uniform(0.01, 0.3)
                case "reset":
                    proxy.reset_all()
                case "close":
                    proxy.close_all()
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            _heal(proxy)

    async def _again(self, breaks: Callable[[random.Random], Awaitable[None]], chance: random.Random) -> None:
        while True:
            await asyncio.sleep(chance.uniform(1.0, 4.0))
            await breaks(chance)

    async def _issuer(self, chance: random.Random) -> None:
        issuer = self.town.issuer
        failures: tuple[Failure, ...] = ("html", "error", "garbled")
        issuer.failure = chance.choice(failures)
        self.done.append(f"issuer {issuer.failure}")
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        issuer.failure = ""

    async def _store(self, chance: random.Random) -> None:
        store, what = self.town.store, chance.choice(("freeze", "flush", "restart"))
        self.done.append(f"store {what}")
        match what:
            case "freeze":
                store.freeze()
                try:
                    await asyncio.sleep(chance.uniform(0.0, 1.5))
                finally:
                    store.thaw()
            case "flush":
                with suppress(OSError):
                    await asyncio.to_thread(store.command, "FLUSHALL")
            case _:
                store.stop()
                try:
                    await asyncio.sleep(chance.uniform(0.0, 1.0))
                finally:
                    store.start()

    async def _kill(self, chance: random.Random) -> None:
        await kill_one(self.gateway)
        self.done.append("worker killed")
        self.kills += 1
        await asyncio.sleep(3)  # the supervisor lets workers that die young wait

    async def _reload(self, chance: random.Random) -> None:
        self.done.append("reload")
        self.gateway.process.send_signal(signal.SIGHUP)

    async def _leave(self, chance: random.Random) -> None:
        """Thirty who ask and are gone within 50 ms."""
        self.done.append("thirty leave")

        async def one(name: str) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(0.0, 0.05)):
                    await self.load.ask(name)

        number = len(self.done)
        await asyncio.gather(*(one(f"left-{number}-{each}") for each in range(30)))


def _heal(proxy: FaultProxy) -> None:
    proxy.is_silent = proxy.refuses = False
    proxy.latency_s = 0.0
