"""URLs that clients give: every disguise of an address that is never called, every way around the operator's list."""

import posixpath
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torana.wire.addresses import is_forbidden
from torana.wire.endpoint import Prefixes, fault_of

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

METADATA = IPv4Address("169.254.169.254")


def spellings(address: IPv4Address) -> list[str]:
    """What the system's resolver takes for this address."""
    whole = int(address)
    a, b, c, d = address.packed
    return [
        str(address), str(whole), hex(whole), f"0{whole:o}", f"{a}.{whole & 0xFFFFFF}", f"{a}.{b}.{whole & 0xFFFF}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"0x{a:x}.{b}.0{whole & 0xFFFF:o}",
        f"{address}.", f"0X{whole:X}", f"0000{a:o}.{b}.{c}.{d}",
    ]  # fmt: skip


def carriers(address: IPv4Address) -> list[IPv6Address]:
    """IPv6 addresses that lead to it by one way out or another."""
    low = int(address)
    return [
        IPv6Address((0xFFFF << 32) | low),  # mapped
        IPv6Address(low),  # compatible
        IPv6Address((0xFFFF << 48) | low),  # translated
        IPv6Address((0x0064FF9B << 96) | low),  # NAT64
        IPv6Address((0x0064FF9B0001 << 80) | low),  # a network's own NAT64, /96
        IPv6Address((0x0064FF9B0001 << 80) | (low >> 16) << 64 | (low & 0xFFFF) << 40),  # /48
        IPv6Address((0x0064FF9B000112 << 72) | (low >> 24) << 64 | (low & 0xFFFFFF) << 32),  # /56
        IPv6Address((0x0064FF9B00011234 << 64) | low << 24),  # /64
        IPv6Address((0x2002 << 112) | low << 80 | 1),  # 6to4
        IPv6Address((0x20010000 << 96) | low << 64 | 0x1234),  # Teredo server
        IPv6Address((0x20010000 << 96) | (0x41424344 << 64) | (~low & 0xFFFFFFFF)),  # Teredo client
        IPv6Address((0x20010DB8 << 96) | (0x00005EFE << 32) | low),  # ISATAP
        IPv6Address((0x20010DB8 << 96) | (0x02005EFE << 32) | low),
    ]


NEVER = st.one_of(
    st.integers(int(IPv4Address("169.254.0.0")), int(IPv4Address("169.254.255.255"))).map(IPv4Address),
    st.sampled_from(["100.100.100.200", "168.63.129.16", "192.0.0.192"]).map(IPv4Address),
    st.integers(int(IPv4Address("224.0.0.0")), int(IPv4Address("255.255.255.255"))).map(IPv4Address),
)
MAY = st.one_of(
    st.integers(int(IPv4Address("10.0.0.0")), int(IPv4Address("10.255.255.255"))).map(IPv4Address),
    st.integers(int(IPv4Address("127.0.0.0")), int(IPv4Address("127.255.255.255"))).map(IPv4Address),
    st.integers(int(IPv4Address("192.168.0.0")), int(IPv4Address("192.168.255.255"))).map(IPv4Address),
)


@calm
@given(NEVER)
def test_no_spelling_and_no_carrier_hides_an_address(address: IPv4Address) -> None:
    for host in (*spellings(address), *(f"[{each}]" for each in carriers(address))):
        assert fault_of(f"http://{host}/v1") == "never_called", host
    assert all(is_forbidden(str(each)) for each in carriers(address))


@calm
@given(MAY)
def test_private_addresses_may_be_called_in_every_spelling(address: IPv4Address) -> None:
    for host in (*spellings(address), f"[{carriers(address)[0]}]"):
        assert fault_of(f"http://{host}:8000/v1") == "", host


@pytest.mark.parametrize(
    "host",
    [
        "[fe80::1]", "[fe80::a9fe:a9fe]", "[fd00:ec2::254]", "[fd00:ec2::23]", "[FD00:EC2::254]", "[fd20:ce::254]",
        "[::]", "[ff02::1]", "0", "0.0.0.0", "0.1.2.3", "255.255.255.255", "metadata", "METADATA.google.internal",
        "metadata.google.internal.", "metadata.google.internal..", "instance-data",
    ],
)  # fmt: skip
def test_metadata_has_many_names(host: str) -> None:
    assert fault_of(f"https://{host}/v1") == "never_called"


@pytest.mark.parametrize(
    "url",
    [
        "", "http://", "http:///v1", "//h/v1", "h:80/v1", "ftp://h/v1", "file:///etc/passwd", "gopher://h/",
        "http://user@h/v1", "http://user:pass@h/v1", "http://@h/v1", "http://:@h/v1", "http://a@b@h/v1",
        "http://h/v1?", "http://h/v1?a=b", "http://h/v1#", "http://h/v1#x", "http://h?/v1", "http://h#@evil/",
        "http://h\\@evil/v1", "http://h/v1\\..\\x", "http://h /v1", "http://h\t/v1", "http://h/v1\r\nX: y", "http://h/\x00",
        "http://h:99999/v1", "http://h:-1/v1", "http://h:0/v1", "http://h:8a/v1",
        "http://169。254。169。254/v1", "http://①②⑦.0.0.1/v1", "http://h.ex\u0430mple/v1", "http://ｅvil/v1",
        "http://169.254.169%2e254/v1", "http://%31%36%39.254.169.254/v1", "http://[fe80::1%25eth0]/v1", "http://[::1/v1",
        "http://h/v1/../x", "http://h/v1/./x", "http://h/v1/..", "http://h/v1/%2e%2e/x", "http://h/v1/%2E./x",
        "http://h/v1/.%2e/x", "http://h/v1/%252e%252e/x", "http://h/v1/%25252e%25252e/x", "http://h/v1/..;/x",
        "http://h/v1/..;a=b/x", "http://h/v1/%2e%2e;/x", "http://h/v1/a%2f..%2fb", "http://h/v1/a%5c..", "http://h/v1/a%00b",
        "http://h/v1/a%3fb", "http://h/v1/a%23b", "http://h/v1/%2e%2e%2f%2e%2e", "http://h/v1/.. /x", "http://h/v1/%20..",
        "http://h/%" + "25" * 9 + "2e", "http://h/%" + "25" * 9 + "2e./x",
    ],
)  # fmt: skip
def test_what_may_be_read_in_two_ways_is_no_endpoint(url: str) -> None:
    assert fault_of(url) == "no_url"
    # A query may stand behind what goes out; it is no part of the place.
    assert "?" in url or not Prefixes(["http://h/v1", "http://h"]).hold(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://vllm:8000/v1", "https://models.example.com", "https://models.example.com/", "http://127.0.0.1:11434/v1/",
        "http://localhost/v1", "http://[::1]:8000/v1", "http://[fd12::1]/v1", "HTTP://Models.Example.com:443/V1",
        "http://my_server/v1", "http://xn--mller-kva.example/v1", "http://h/a.b/..c/d..", "http://h/v1/%C3%A4",
        "http://h/v1;x=1", "http://h//v1",
    ],
)  # fmt: skip
def test_good_endpoints_are_good(url: str) -> None:
    assert fault_of(url) == ""


@pytest.mark.parametrize(
    ("prefix", "url", "is_held"),
    [
        ("http://a", "http://a", True),
        ("http://a", "http://a/", True),
        ("http://a/", "http://a", True),
        ("http://a", "http://a/v1/x", True),
        ("http://a", "http://A/v1", True),
        ("http://a", "http://a:80/v1", True),
        ("http://a:80", "http://a/v1", True),
        ("https://a", "https://a:443/v1", True),
        ("http://a", "http://a.evil/v1", False),
        ("http://a", "http://evil.a/v1", False),
        ("http://a", "http://a./v1", False),
        ("http://a", "http://a:8080/v1", False),
        ("http://a:8080", "http://a/v1", False),
        ("http://a", "https://a/v1", False),
        ("https://a", "http://a:443/v1", False),
        ("http://a/v1", "http://a/v1", True),
        ("http://a/v1", "http://a/v1/", True),
        ("http://a/v1/", "http://a/v1", True),
        ("http://a/v1", "http://a/v1/chat", True),
        ("http://a/v1", "http://a/v10", False),
        ("http://a/v1", "http://a/v1evil", False),
        ("http://a/v1", "http://a/V1", False),
        ("http://a/v1", "http://a//v1", False),
        ("http://a/v1", "http://a/", False),
        ("http://a/v1", "http://a/v1/../x", False),
        ("http://a/v1", "http://a/v1/%2e%2e/x", False),
        ("http://a/v1", "http://a/v1/..%2fx", False),
        ("http://a/v1", "http://a/v1/..;/x", False),
        ("http://a/v1", "http://a@evil/v1", False),
        ("http://a/v1", "http://evil#@a/v1", False),
        ("http://a/v1", "http://a/v1?api-version=2024-10-21", True),
        ("http://a/v1", "http://evil?http://a/v1", False),
        ("http://127.0.0.1", "http://127.0.0.1/v1", True),
        ("http://127.0.0.1", "http://2130706433/v1", False),
        ("http://[::1]", "http://[0:0:0:0:0:0:0:1]/v1", True),
    ],
)  # fmt: skip
def test_the_operators_list_is_compared_part_by_part(prefix: str, url: str, is_held: bool) -> None:
    assert Prefixes([prefix]).hold(url) is is_held


def test_an_empty_or_senseless_list_holds_nothing() -> None:
    assert not Prefixes([]).hold("http://a")
    assert not Prefixes(["", "a", "http://", "http://a/../b"]).hold("http://a")


pieces = st.sampled_from(
    [
        "v1",
        "..",
        ".",
        "%2e%2e",
        "%2E",
        "..;",
        "%2f",
        "%5c",
        "",
        "x",
        "%252e%252e",
        "\\",
        "team",
        ";",
        "%00",
        "a%2f..",
        "@",
        ":",
    ]
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(pieces, max_size=8), st.sampled_from(["http://h", "http://h:80", "http://h.evil", "http://h@evil"]))
def test_what_is_held_stays_below_the_prefix_however_a_server_reads_it(path: list[str], host: str) -> None:
    url = "/".join([host, *path])

    if Prefixes(["http://h/team"]).hold(url):
        parts = urlsplit(url)
        assert parts.hostname == "h"
        for read in (parts.path, unquote(parts.path), unquote(unquote(parts.path))):
            for seen in (read, read.replace("\\", "/"), "/".join(each.partition(";")[0] for each in read.split("/"))):
                assert f"{posixpath.normpath(seen)}/".startswith("/team/")
