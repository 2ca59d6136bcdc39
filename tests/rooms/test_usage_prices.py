"""Prices: exact to the last digit, unknown where the list is silent."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from torana.chat import Usage
from torana.usage.prices import Price, UnknownPrice, cost_usd

SONNET = Price.of("2026-05-01", input="3.00", output="15.00", cache_read="0.30", cache_write="3.75")

tokens = st.integers(0, 10**9)


def test_each_kind_of_token_has_its_own_price() -> None:
    usage = Usage(
        input_tokens=1_000, output_tokens=200, cache_read_tokens=600, cache_write_tokens=300, reasoning_tokens=150
    )

    # 100 fresh at 3, 600 read at 0.30, 300 written at 3.75, 200 out (reasoning is part of them) at 15
    assert cost_usd(usage, SONNET) == Decimal("0.004605")


def test_what_the_cache_keeps_for_an_hour_has_a_price_of_its_own() -> None:
    price = Price.of("2026-05-01", input="3", cache_write="3.75", cache_write_1h="6")
    usage = Usage(input_tokens=1_000, cache_write_tokens=1_000, cache_write_1h_tokens=400)

    assert cost_usd(usage, price) == Decimal("0.00465")
    with pytest.raises(UnknownPrice):
        cost_usd(usage, SONNET)


def test_a_call_with_a_long_prompt_costs_its_price_whole() -> None:
    long = (1_000, {"input": "6", "output": "22.5"})
    price = Price.of("2026-05-01", input="3", output="15", cache_read="0.3", long=long)

    assert cost_usd(Usage(input_tokens=1_000, output_tokens=100), price) == Decimal("0.0045")
    assert cost_usd(Usage(input_tokens=1_001, output_tokens=100), price) == Decimal("0.008256")
    with pytest.raises(UnknownPrice, match="cache_read"):
        cost_usd(Usage(input_tokens=1_001, cache_read_tokens=1), price)


def test_a_call_in_a_tier_costs_times_as_much_and_nobody_knows_what_where_the_list_is_silent() -> None:
    price = Price.of("2026-05-01", input="3", output="15", times={"fast": "6", "us": "1.1", "free": "0"})
    usage = Usage(input_tokens=1_000, output_tokens=100)

    assert cost_usd(replace(usage, tiers=("fast",)), price) == Decimal("0.027")
    assert cost_usd(replace(usage, tiers=("fast", "us")), price) == Decimal("0.0297")
    assert cost_usd(replace(usage, tiers=("free",)), price) == 0
    assert cost_usd(Usage(tiers=("priority",)), price) == 0
    with pytest.raises(UnknownPrice, match="priority"):
        cost_usd(replace(usage, tiers=("fast", "priority")), price)


def test_a_call_without_tokens_costs_nothing() -> None:
    assert cost_usd(Usage(), Price.of("2026-05-01")) == 0


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=1),
        Usage(output_tokens=1),
        Usage(input_tokens=1, cache_read_tokens=1),
        Usage(input_tokens=1, cache_write_tokens=1),
    ],
)
def test_a_token_without_a_price_makes_the_cost_unknown_and_never_nothing(usage: Usage) -> None:
    with pytest.raises(UnknownPrice):
        cost_usd(usage, Price.of("2026-05-01"))
    with pytest.raises(UnknownPrice):
        cost_usd(usage, None)


def test_a_price_of_nought_is_a_price() -> None:
    assert cost_usd(Usage(input_tokens=5, output_tokens=5), Price.of("2026-05-01", input="0", output="0.0")) == 0


def test_tokens_that_cannot_be_are_not_priced() -> None:
    with pytest.raises(ValueError, match="cannot be priced"):
        cost_usd(Usage(input_tokens=5, cache_read_tokens=6), SONNET)


@pytest.mark.parametrize("text", ["-1", "free", "NaN", "Infinity", "1,50", "$3"])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected US dollars per million tokens"):
        Price.of("2026-05-01", input=text)


@given(fresh=tokens, read=tokens, written=tokens, output=tokens)
def test_calls_added_up_cost_what_their_tokens_added_up_cost(fresh: int, read: int, written: int, output: int) -> None:
    usage = Usage(
        input_tokens=fresh + read + written, output_tokens=output, cache_read_tokens=read, cache_write_tokens=written
    )
    parts = (
        Usage(input_tokens=fresh),
        Usage(input_tokens=read, cache_read_tokens=read),
        Usage(input_tokens=written, cache_write_tokens=written),
        Usage(output_tokens=output),
    )

    assert cost_usd(usage, SONNET) == sum(cost_usd(part, SONNET) for part in parts)
