"""Names and addresses: remembered, shared, and never the forbidden ones; and which proxy leads where."""

import asyncio
import ssl
from functools import partial

import pytest
from tests.support.waiting import eventually

from torana.errors import ProviderBroke, ProviderUnreachable
from torana.wire.addresses import AddressBook, is_forbidden, look_up, resolve_checked
from torana.wire.client import WireClient
from torana.wire.proxies import Proxies


class Names:
    """A name server that the test turns on and off."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0
        self.is_failing = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await self.may_answer.wait()
        if self.is_failing:
            raise OSError(-3, "Temporary failure in name resolution")
        return list(self.addresses)


async def test_an_address_is_remembered_for_its_time() -> None:
    names = Names("127.0.0.1")
    book = AddressBook(names)

    assert [await book.resolve("a", 80) for _ in range(3)] == [["127.0.0.1"]] * 3
    assert names.asked == 1


async def test_a_new_address_is_used_once_the_old_ones_time_is_over() -> None:
    names = Names("127.0.0.1")
    book = AddressBook(names, ttl_s=0)
    await book.resolve("a", 80)
    names.addresses = ["127.0.0.2"]

    assert await book.resolve("a", 80) == ["127.0.0.2"]


async def test_the_last_good_address_serves_while_the_name_server_fails() -> None:
    names = Names("127.0.0.1")
    book = AddressBook(names, ttl_s=0)
    await book.resolve("a", 80)
    names.is_failing = True

    assert [await book.resolve("a", 80) for _ in range(3)] == [["127.0.0.1"]] * 3
    assert names.asked == 2  # and is left in peace for a moment
    with pytest.raises(OSError, match="Temporary failure"):
        await book.resolve("b", 80)


async def test_the_last_good_address_serves_while_the_name_server_dawdles() -> None:
    names = Names("127.0.0.1")
    book = AddressBook(names, ttl_s=0, patience_s=0.01)
    await book.resolve("a", 80)
    names.may_answer.clear()
    names.addresses = ["127.0.0.2"]

    assert [await book.resolve("a", 80) for _ in range(3)] == [["127.0.0.1"]] * 3
    names.may_answer.set()
    assert await book.resolve("a", 80) == ["127.0.0.2"]
    assert names.asked == 2


async def test_a_host_that_has_moved_is_found_where_its_old_address_lets_nobody_in() -> None:
    names = Names("127.0.0.9")
    book = AddressBook(names, retry_s=0.0)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = WireClient(1.0, ssl.create_default_context, book.resolve, doubt=book.doubt)
    send = partial(client.send, "GET", f"http://a:{port}/", {}, b"", first_byte_s=1, idle_s=1)
    await book.resolve("a", port)
    names.addresses = ["127.0.0.1"]

    async def has_moved() -> bool:
        return await book.resolve("a", port) == names.addresses

    with pytest.raises(ProviderUnreachable):
        await send()
    await eventually(has_moved)
    with pytest.raises(ProviderBroke):  # somebody is there
        await send()

    assert names.asked == 2
    server.close()
    await client.aclose()


async def test_a_host_that_lets_nobody_in_is_not_looked_up_again_and_again() -> None:
    names = Names("127.0.0.1")
    book = AddressBook(names)
    await book.resolve("a", 80)

    for _ in range(3):
        book.doubt("a", 80)
        await book.resolve("a", 80)

    assert names.asked == 1


async def test_a_hundred_who_ask_at_once_share_one_look_up_and_may_leave_it() -> None:
    names = Names("127.0.0.1")
    names.may_answer.clear()
    book = AddressBook(names)
    waiting = [asyncio.ensure_future(book.resolve("a", 80)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in waiting[:50]:
        task.cancel()
    names.may_answer.set()

    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert names.asked == 1
    assert results[50:] == [["127.0.0.1"]] * 50


async def test_closing_ends_what_is_being_looked_up() -> None:
    names = Names("127.0.0.1")
    names.may_answer.clear()
    book = AddressBook(names)
    waiting = asyncio.ensure_future(book.resolve("a", 80))
    await asyncio.sleep(0)

    book.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_name_without_addresses_is_an_error() -> None:
    with pytest.raises(OSError, match="without addresses"):
        await AddressBook(Names()).resolve("a", 80)
    with pytest.raises(OSError, match="without addresses"):
        await resolve_checked("a", 80, Names())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "169.254.169.254"])
async def test_an_address_is_its_own_answer(host: str) -> None:
    assert await look_up(host, 80) == [host]


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "." * 3])
async def test_a_name_that_cannot_be_one_is_no_crash(client: WireClient, host: str) -> None:
    with pytest.raises(ProviderUnreachable):
        await client.send("GET", f"http://{host}/", {}, b"", first_byte_s=1, idle_s=1)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fe80::a9fe:a9fe",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:0ec2:0:0:0:0:0:254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b::100.100.100.200",
        "2002:a9fe:a9fe::1",
    ],
)
async def test_link_local_and_metadata_addresses_are_never_called(address: str) -> None:
    assert is_forbidden(address)
    for addresses in ([address], ["127.0.0.1", address]):
        with pytest.raises(OSError, match="never called"):
            await resolve_checked("some.host", 80, Names(*addresses))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "192.168.1.1",
        "8.8.8.8",
        "2001:db8::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "169.253.0.1",
    ],
)
def test_self_hosted_addresses_may_be_called(address: str) -> None:
    assert not is_forbidden(address)


# Proxies


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ((), "http://a.example/", False),
        (("",), "http://a.example/", False),
        (("*",), "http://a.example/", True),
        (("a.example",), "http://a.example/", True),
        (("A.Example",), "http://a.EXAMPLE/", True),
        (("a.example",), "http://b.a.example/", True),
        ((".a.example",), "http://b.a.example/", True),
        (("*.a.example",), "http://b.a.example/", True),
        (("a.example",), "http://nota.example/", False),
        (("a.example",), "http://a.example.evil/", False),
        (("a.example:8080",), "http://a.example:8080/", True),
        (("a.example:8080",), "http://b.a.example:8080/", True),
        (("a.example:8080",), "http://a.example/", False),
        (("a.example:443",), "https://a.example/", True),
        (("127.0.0.1",), "http://127.0.0.1:5000/", True),
        (("127.0.0.1",), "http://127.0.0.11/", False),
        (("10.0.0.0/8",), "http://10.1.2.3/", True),
        (("10.0.0.0/8",), "http://11.1.2.3/", False),
        (("10.9.8.7/8",), "http://10.1.2.3/", True),
        (("::1",), "http://[::1]/", True),
        (("[::1]",), "http://[::1]/", True),
        (("fd00::/8",), "http://[fd00::1]/", True),
        (("b.example", " a.example "), "http://a.example/", True),
        ((), "http://[::1/", True),
        ((), "nothing", True),
    ],
)
def test_no_proxy_is_read_as_the_usual_tools_read_it(no_proxy: tuple[str, ...], url: str, is_direct: bool) -> None:
    proxies = Proxies("proxy.example:3128", "http://proxy.example:3129", no_proxy)

    expected = "http://proxy.example:3129" if url.startswith("https") else "http://proxy.example:3128"
    assert proxies.find(url) == ("" if is_direct else expected)


def test_each_scheme_has_its_own_proxy() -> None:
    assert Proxies("", "http://p", ()).find("http://a/") == ""
    assert Proxies("http://p", "", ()).find("https://a/") == ""
    assert Proxies("", "", ()).find("https://a/") == ""
