"""Real model calls from a command: the server's own sender, opened for as long as the command runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from torana.clock import Clock
from torana.providers.demo.demo import DemoProvider
from torana.providers.send import Sender
from torana.providers.table import provider_table
from torana.settings import Settings
from torana.transport import Transport

VIA = "1.1 torana-cli"


@asynccontextmanager
async def open_sender(settings: Settings) -> AsyncIterator[Sender]:
    transport = Transport(settings.transport)
    demo = DemoProvider(settings.providers.demo_engine)
    try:
        yield Sender(transport, provider_table(settings.providers, transport, Clock()), demo, VIA, settings.transport)
    finally:
        await transport.aclose()
