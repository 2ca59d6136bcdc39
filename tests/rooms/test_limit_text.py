"""How limits are written down, and what is refused of limits.yml."""

import contextlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from torana.catalog.limit_text import MAX_AMOUNT, USD, BadLimit, Dimension, LimitTerms, read_limit
from torana.catalog.load import load_catalogue
from torana.cli.check import check
from torana.errors import BadCatalogue


def terms(amount: int, unit: Any, period: str = "", *per: Any, periods: int = 1) -> LimitTerms:
    return LimitTerms(amount=amount, unit=unit, period=period, periods=periods, per=per)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("60 per minute per user", terms(60, "requests", "minute", "user")),
        ("60 requests per minute", terms(60, "requests", "minute")),
        ("2M tokens per day per instance", terms(2_000_000, "tokens", "day", "instance")),
        ("1.5k tokens per hour", terms(1_500, "tokens", "hour")),
        ("5 USD per day per instance", terms(5 * USD, "usd", "day", "instance")),
        ("$0.50 per month", terms(USD // 2, "usd", "month")),
        ("20 concurrent streams per user", terms(20, "streams", "", "user")),
        ("1 concurrent request", terms(1, "streams")),
        ("100k input tokens per minute per user and model", terms(100_000, "input_tokens", "minute", "user", "model")),
        (
            "7 output tokens per second per user, model, and unit primitive",
            terms(7, "output_tokens", "second", "user", "model", "unit_primitive"),
        ),
        (
            "1,000 per 10 minutes per realm per provider",
            terms(1000, "requests", "minute", "realm", "provider", periods=10),
        ),
        ("50 MB per minute per instance", terms(50_000_000, "bytes", "minute", "instance")),
        ("1.5 KiB per second", terms(1536, "bytes", "second")),
        ("100k bytes per hour per user", terms(100_000, "bytes", "hour", "user")),
        ("  60   Requests  PER Minute  per User ", terms(60, "requests", "minute", "user")),
    ],
)
def test_a_limit_reads_as_it_sounds(text: str, meant: LimitTerms) -> None:
    assert read_limit(text) == meant


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is no limit"),
        ("many per minute", "is no limit"),
        ("-5 per minute", "is no limit"),
        ("60", "says no time"),
        ("60 per fortnight", "unknown time `fortnight`"),
        ("60 per 0 minutes", "unknown time"),
        ("60 per 00 minutes", "unknown time"),
        ("60 per 2 days", "no part of the calendar"),
        ("60 frogs per minute", "unknown unit `frogs`"),
        ("$5 tokens per day", "unknown unit"),
        ("$5 MB per day", "unknown unit"),
        ("0.0001 KB per day", "no amount"),
        ("0 per minute", "no amount"),
        ("0.5 requests per minute", "no amount"),
        ("9999999999999999 per minute", "no amount"),
        ("60 per minute per planet", "unknown `per planet`"),
        ("60 per minute per user per user", "stands twice"),
        ("60 per user", "unknown time `user`"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(BadLimit, match=wrong):
        read_limit(text)


periods = st.one_of(
    st.tuples(st.sampled_from(["second", "minute", "hour"]), st.integers(1, 9999)),
    st.tuples(st.sampled_from(["day", "week", "month"]), st.just(1)),
)


def write_limit(meant: LimitTerms) -> str:
    """As an author would write it: `60 requests per minute per user`."""
    if meant.unit == "usd":
        dollars = Decimal(meant.amount) / USD
        text = f"{dollars:f}".rstrip("0").rstrip(".") if dollars % 1 else f"{dollars:.0f}"
        parts = [f"{text} USD"]
    else:
        name = {"streams": "concurrent streams"}.get(meant.unit, meant.unit.replace("_", " "))
        parts = [f"{meant.amount} {name}"]
    if meant.period:
        parts.append(meant.period if meant.periods == 1 else f"{meant.periods} {meant.period}s")
    if meant.per:
        parts.append(" and ".join(each.replace("_", " ") for each in meant.per))
    return " per ".join(parts)


@given(
    st.integers(1, MAX_AMOUNT),
    st.sampled_from(["requests", "bytes", "tokens", "input_tokens", "output_tokens", "usd"]),
    periods,
    st.lists(st.sampled_from(get_args(Dimension)), unique=True),
)
def test_what_is_written_reads_the_same(amount: int, unit: Any, period: tuple[str, int], per: list[Any]) -> None:
    written = terms(amount, unit, period[0], *per, periods=period[1])

    assert read_limit(write_limit(written)) == written


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadLimit):
        assert read_limit(text).amount >= 1


def problems_of(folder: Path, *records: dict[str, Any]) -> list[str]:
    (folder / "limits.yml").write_text("\n".join(f"- {json.dumps(record)}" for record in records))
    with pytest.raises(BadCatalogue) as refused:
        load_catalogue([folder])
    return [problem.removeprefix(f"{folder}/") for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ({"limit": "60 per fortnight"}, "unknown time `fortnight`"),
        ({"limit": "60 per minute", "burst": 61}, "`burst` is 61, expected 0 to 60"),
        ({"limit": "60 per day", "burst": 5}, "`burst` spreads calls over seconds, minutes or hours"),
        ({"limit": "5 concurrent streams", "burst": 5}, "`burst` spreads"),
        ({"limit": "60 per minute", "name": "Not good"}, "`Not good` is no name of a limit"),
        ({"limit": "60 per minute", "when_down": "open"}, "expected one of local, closed"),
        ({"limit": "60 per minute", "exactly": True}, "unknown member `exactly`, did you mean `exact`?"),
        ({"limit": "60 per minute", "match": {"model": ["x"]}}, "did you mean `models`?"),
        ({"limit": "60 per minute", "match": {"models": ["no-such"]}}, "unknown model `no-such`"),
        ({"limit": "60 per minute", "match": {"features": ["x"]}}, "unknown feature or prompt `x`"),
        ({"limit": "60 per minute", "match": {"unit_primitives": ["x"]}}, "unknown unit primitive `x`"),
        ({"limit": "60 per minute", "match": {"providers": ["x"]}}, "unknown provider `x`"),
    ],
)
def test_torana_check_names_file_and_line_of_a_bad_limit(tmp_path: Path, members: dict[str, Any], wrong: str) -> None:
    good = {"name": "good", "limit": "1 per minute"}

    (problem,) = problems_of(tmp_path, good, {"name": "bad", **members})

    assert problem.startswith("limits.yml:2: ")
    assert wrong in problem


def test_a_later_limits_yml_replaces_limits_by_name(tmp_path: Path) -> None:
    for name, limit in (("one", "1 per minute"), ("two", "2 per minute")):
        (tmp_path / name).mkdir()
        records = [{"name": "shared", "limit": limit}, {"name": name, "limit": limit}]
        (tmp_path / name / "limits.yml").write_text(json.dumps(records))

    catalogue = load_catalogue([tmp_path / "one", tmp_path / "two"])
    told = CliRunner().invoke(check, ["--catalog", str(tmp_path / "one"), "--catalog", str(tmp_path / "two")])

    assert {name: each.limit for name, each in catalogue.limits.items()} == {
        "shared": "2 per minute",
        "one": "1 per minute",
        "two": "2 per minute",
    }
    assert told.exit_code == 0
    assert "overrides: limits shared:" in told.output


def test_nothing_is_limited_as_shipped() -> None:
    assert load_catalogue().limits == {}
