"""The members that the gate judges: found in any body, and read at a price that their client does not choose."""

import pytest

from torana.api.judged import MAX_MEMBERS, JudgedReader, Repeated

CROWDED = b"[%s1]" % (b"[]," * 400_000)


@pytest.mark.parametrize("name", [b"model", b"Model", rb"mod\u0065l", b"max_tokens", b"generationConfig"])
def test_a_judged_member_of_more_values_than_anybody_needs_is_not_read(name: bytes) -> None:
    with pytest.raises(ValueError, match="more values"):
        JudgedReader().read(b'{"%s":%s}' % (name, CROWDED))


def test_values_of_several_judged_members_are_counted_together() -> None:
    half = b"[%s1]" % (b"[]," * 200_000)

    with pytest.raises(ValueError, match="more values"):
        JudgedReader().read(b'{"model":%s,"n":%s}' % (half, half))


def test_what_is_not_judged_may_be_crowded() -> None:
    assert JudgedReader().read(b'{"input":%s,"model":"a"}' % CROWDED) == {"model": "a"}


def test_a_crowded_member_that_stands_twice_is_told_so_unread() -> None:
    with pytest.raises(Repeated):
        JudgedReader().read(b'{"model":%s,"model":"a"}' % CROWDED)


def test_as_many_members_as_anybody_needs_are_looked_at() -> None:
    many = b"".join(b'"x%d":1,' % number for number in range(MAX_MEMBERS - 1))
    reader = JudgedReader()

    assert reader.read(b'{%s"model":"a"}' % many) == {"model": "a"}
    with pytest.raises(ValueError, match="more members"):
        reader.read(b'{%s"x":1,"model":"a"}' % many)
    assert reader.read(b'{"model":"a"}') == {"model": "a"}


def test_a_number_that_nothing_holds_is_as_good_as_absent() -> None:
    assert JudgedReader().read(b'{"n":1e400,"model":"a"}') == {"model": "a"}
