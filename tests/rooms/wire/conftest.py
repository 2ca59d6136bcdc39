"""These tests run on both event loops: uvloop's transports differ from asyncio's just where it matters here."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack

import pytest
import uvloop

from torana.heap import Heap
from torana.wire.addresses import Resolve, look_up
from torana.wire.client import WireClient
from torana.wire.large_answers import LargeAnswers

MakeClient = Callable[..., WireClient]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def no_tls() -> ssl.SSLContext:
    raise AssertionError("nobody asked for TLS")


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    async with AsyncExitStack() as stack:

        def make(
            *,
            connect_s: float = 5,
            tls: Callable[[], ssl.SSLContext] = no_tls,
            resolve: Resolve = look_up,
            heap: Heap | None = None,
            large: LargeAnswers | None = None,
            idle_connection_s: float = 30,
            connection_life_s: float = 300,
        ) -> WireClient:
            client = WireClient(
                connect_s,
                tls,
                resolve,
                heap=heap,
                large=large,
                idle_connection_s=idle_connection_s,
                connection_life_s=connection_life_s,
            )
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
async def client(make_client: MakeClient) -> WireClient:
    return make_client()
