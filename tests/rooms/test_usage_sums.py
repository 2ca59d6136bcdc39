"""What a report says of any split and span, held against the records themselves, added up one by one."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.rooms.test_usage_reports import CLOCK, NOW, batch, event

from torana.usage.report import TIMES, Report, ask
from torana.usage.sinks.rollup import RollupSink

DAY_S = 86_400.0
SPLITS = ("instance", "user", "model", "status", *TIMES)

Told = tuple[datetime, dict[str, Any]]


def moment(chance: random.Random) -> datetime:
    """Mostly of the last hours, some of the last months, a few of a clock that runs ahead."""
    seconds = chance.choice((4 * 3600, 3 * 86_400, 90 * 86_400, 90 * 86_400, -7200))
    return NOW - timedelta(seconds=chance.randrange(abs(seconds))) * (1 if seconds > 0 else -1)


def record(chance: random.Random) -> Told:
    asked, answered = chance.randrange(1000), chance.randrange(1000)
    cost = chance.choice((None, "0", "0.000000000001", f"{chance.randrange(10**15) / Decimal(10**12):f}"))
    return moment(chance), {
        "instance": chance.choice("ab"), "user": chance.choice("uvw"), "model": chance.choice("mn"),
        "status": chance.choice(("completed", "interrupted")), "input_tokens": asked, "output_tokens": answered,
        "cache_read_tokens": chance.randrange(asked + 1), "cache_write_tokens": 0,
        "reasoning_tokens": chance.randrange(answered + 1), "source": chance.choice(("provider", "counted")),
        "cost_usd": cost, "duration_s": chance.randrange(10_000) / 1000,
    }  # fmt: skip


def figures(told: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    costs = [Decimal(each["cost_usd"]) for each in told if each["cost_usd"] is not None]
    counts = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    return (
        len(told), *(sum(each[name] for each in told) for name in counts), sum(costs) if costs else None,
        len(told) - len(costs), sum(each["source"] != "provider" for each in told),
        sum(round(each["duration_s"] * 1000) for each in told) / 1000,
    )  # fmt: skip


def add_up(records: Sequence[Told], by: Sequence[str], found: Report, until: datetime | None) -> dict[Any, Any]:
    groups = defaultdict(list)
    for ended, members in records:
        if found.since <= ended and (until is None or ended < found.until):
            names = tuple(ended.strftime(TIMES[name]) if name in TIMES else members[name] for name in by)
            groups[names].append(members)
    return {names: figures(told) for names, told in groups.items()}


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("seed", range(8))
async def test_a_report_is_the_sum_of_its_records_to_the_last_digit(tmp_path: Path, seed: int, hosts: int) -> None:
    chance = random.Random(seed)
    sinks = []
    for host in range(hosts):
        keep = {"minute": chance.choice((0.05, 1, 10)), "hour": chance.choice((1, 30)), "day": 800}
        sinks.append(RollupSink(tmp_path / f"{host}.sqlite3", {name: keep[name] * DAY_S for name in keep}, CLOCK))
        await sinks[host].position("mine")  # makes it
    records = [record(chance) for _ in range(chance.randrange(1, 80))]
    events, sent = [event(number, ended, **members) for number, (ended, members) in enumerate(records)], 0
    while sent < len(events):
        part = events[sent : sent + chance.randrange(1, 20)]
        await chance.choice(sinks).send(batch(*part, start=sent + 1))
        sent += len(part)
    for sink in sinks:
        await sink.aclose()
    paths = [tmp_path / f"{host}.sqlite3" for host in range(hosts)]

    for _ in range(30):
        by = chance.sample(SPLITS, chance.randrange(4))
        since, until = moment(chance), chance.choice((None, moment(chance)))
        if until is not None and until <= since:
            until = since + timedelta(seconds=chance.randrange(1, 5 * 86_400))
        found = ask(paths, by, since, until, NOW)

        told = {
            row.names: (
                row.calls, row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens,
                row.reasoning_tokens, row.cost_usd, row.unpriced, row.uncertain, row.seconds,
            )
            for row in found.rows
        }  # fmt: skip
        assert told == add_up(records, by, found, until), (by, since, until)
