"""The roll-up, what is asked of it, and bills that are held against it."""

import asyncio
import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from tests.support.clock import HandClock
from tests.support.waiting import WAIT_S

from torana.cli import main
from torana.usage.bills import model_name
from torana.usage.event import UsageEvent
from torana.usage.folder import Position
from torana.usage.report import BadQuestion, read_by, read_moment
from torana.usage.sinks.rollup import RollupSink
from torana.usage.sinks.sink import Batch, SinkDown

NOW = datetime(2026, 11, 15, 17, 35, 12, tzinfo=UTC)
CLOCK = HandClock(NOW.timestamp())
KEEP = {"minute": 86_400.0, "hour": 30 * 86_400.0, "day": 800 * 86_400.0}


def event(number: int, ended: datetime = NOW, **members: Any) -> bytes:
    usual = {
        "id": f"00000000-0000-7000-8000-{number:012d}", "request_id": "r", "started_at": "", "gateway": "g",
        "worker": "w", "instance": "one", "realm": "saas", "user": "u", "feature": "chat", "unit_primitive": "duo_chat",
        "endpoint": "/v2/chat/agent", "prompt": "", "model": "sonnet", "stream": True, "client": "",
        "client_version": "", "residency": (), "provider": "anthropic", "upstream_model": "claude-sonnet-4-6",
        "deployment": "", "region": "", "ended_at": ended.isoformat().replace("+00:00", "Z"), "duration_s": 1.5,
        "clock_jumped": False, "status": "completed", "error_code": "", "finish_reason": "stop", "input_tokens": 100,
        "output_tokens": 10, "cache_read_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0,
        "source": "provider", "cost_usd": "0.00045", "price_as_of": "2026-05-01", "tries": (),
    }  # fmt: skip
    return msgspec.json.encode(UsageEvent(**(usual | members)))


def batch(*events: bytes, start: int = 1, folder: str = "mine") -> Batch:
    return Batch(folder, list(events), [Position(1, start + number) for number in range(len(events))])


@pytest.fixture
def rollup(tmp_path: Path) -> Path:
    return tmp_path / "usage" / "rollup.sqlite3"


@pytest.fixture
async def sink(rollup: Path) -> Any:
    rollup.parent.mkdir()
    sink = RollupSink(rollup, KEEP, CLOCK)
    yield sink
    await sink.aclose()


@pytest.fixture
def torana(tmp_path: Path) -> Callable[..., Result]:
    def call(*args: str) -> Result:
        return CliRunner().invoke(main, args, env={"AIGW_STATE_DIR": str(tmp_path), "AIGW_CATALOG": ""}, obj=CLOCK)

    return call


def report(torana: Callable[..., Result], *args: str) -> list[dict[str, Any]]:
    result = torana("usage", "report", "--json", *args)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.output)["rows"]
    return rows


# The roll-up


async def test_records_are_added_up_by_minute_hour_and_day(sink: RollupSink, rollup: Path) -> None:
    await sink.send(batch(event(1), event(2), event(3, instance="two", cost_usd=None)))

    rows = sqlite3.connect(rollup).execute(
        "SELECT period, instance, calls, input_tokens, cost, unpriced FROM usage ORDER BY 1, 2"
    )
    assert rows.fetchall() == [
        line
        for period in ("day", "hour", "minute")
        for line in ((period, "one", 2, 200, 900_000_000, 0), (period, "two", 1, 100, 0, 1))
    ]


async def test_what_was_counted_is_not_counted_again(sink: RollupSink, torana: Callable[..., Result]) -> None:
    first, second, third = event(1), event(2), event(3)
    await sink.send(batch(first, second))
    await sink.send(batch(first, second))
    await sink.send(batch(second, third, start=2))

    assert [row["calls"] for row in report(torana)] == [3]
    assert await sink.position("mine") == Position(1, 3)


async def test_two_workers_add_to_one_rollup(sink: RollupSink, rollup: Path, torana: Callable[..., Result]) -> None:
    other = RollupSink(rollup, KEEP, CLOCK)
    await sink.send(batch(event(1)))
    await other.send(batch(event(2), folder="theirs"))
    await other.aclose()

    assert [row["calls"] for row in report(torana)] == [2]


class FrozenClock(HandClock):
    """Whoever asks it while it is frozen stands still, as one does in a database on a disk that is gone."""

    def __init__(self) -> None:
        super().__init__(NOW.timestamp())
        self.is_asked, self.is_thawed = threading.Event(), threading.Event()
        self.is_thawed.set()

    def freeze(self) -> None:
        self.is_asked.clear()
        self.is_thawed.clear()

    def now(self) -> float:
        self.is_asked.set()
        self.is_thawed.wait()
        return super().now()


async def test_a_rollup_that_stands_still_keeps_neither_a_reload_nor_a_server_from_its_end(rollup: Path) -> None:
    rollup.parent.mkdir()
    clock = FrozenClock()
    sink = RollupSink(rollup, KEEP, clock)
    clock.freeze()
    sending = asyncio.ensure_future(sink.send(batch(event(1))))
    await asyncio.to_thread(clock.is_asked.wait)
    try:
        async with asyncio.timeout(WAIT_S):
            await sink.aclose()
    finally:
        clock.is_thawed.set()
        await sending


async def test_rows_that_are_too_old_are_dropped_period_by_period(sink: RollupSink, rollup: Path) -> None:
    old = NOW - timedelta(days=2)
    await sink.send(batch(event(1, old)))

    found = sqlite3.connect(rollup).execute("SELECT period FROM usage ORDER BY 1").fetchall()
    assert found == [("day",), ("hour",)]


async def test_a_wall_clock_that_leaps_ahead_deletes_nothing_before_it_has_stood_for_a_day(rollup: Path) -> None:
    rollup.parent.mkdir()
    clock = HandClock(NOW.timestamp())
    sink = RollupSink(rollup, KEEP, clock)
    await sink.send(batch(event(1)))
    years = timedelta(days=3 * 365).total_seconds()

    async def kept(number: int) -> list[str]:
        clock.advance(3_600)
        ended = datetime.fromtimestamp(clock.now(), UTC)
        await sink.send(batch(event(number, ended), start=number))
        rows = sqlite3.connect(rollup).execute("SELECT period FROM usage WHERE start < ?", (NOW.timestamp(),))
        return sorted(period for (period,) in rows)

    clock.jump(years)
    leapt = await kept(2)
    clock.jump(-years)
    set_right = await kept(3)
    clock.jump(years)
    again = [await kept(number) for number in range(4, 30)]
    await sink.aclose()

    assert leapt == set_right == again[0] == ["day", "hour", "minute"]
    assert again[-1] == []


async def test_a_wall_clock_that_is_years_ahead_at_the_start_deletes_nothing_before_it_has_stood_for_a_day(
    rollup: Path,
) -> None:
    rollup.parent.mkdir()
    clock = HandClock(NOW.timestamp())

    async def start(*numbers: int) -> list[list[str]]:
        sink, kept = RollupSink(rollup, KEEP, clock), []
        for number in numbers:
            clock.advance(3_600)
            await sink.send(batch(event(number, datetime.fromtimestamp(clock.now(), UTC)), start=number))
            rows = sqlite3.connect(rollup).execute("SELECT period FROM usage WHERE start < ?", (begun,))
            kept.append(sorted(period for (period,) in rows))
        await sink.aclose()
        return kept

    begun = NOW.timestamp() + 7_200
    await start(1)
    clock.jump(timedelta(days=3 * 365).total_seconds())
    twice = await start(2) + await start(3)
    for_good = await start(*range(4, 30))

    assert twice == [["day", "hour", "minute"]] * 2
    assert (for_good[0], for_good[-1]) == (["day", "hour", "minute"], [])


async def test_a_record_that_comes_when_its_minutes_are_gone_passes_for_no_whole_hour(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    moments = [NOW - timedelta(days=40), NOW - timedelta(days=35)]
    await sink.send(batch(event(1, moments[1]), event(2)))  # its hour is gone at once
    await sink.send(batch(event(3, moments[0]), start=3))

    assert [row["calls"] for row in report(torana, "--since", "41d")] == [3]


async def test_an_absurd_record_does_not_keep_the_others_from_being_counted(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    for number in range(3):
        await sink.send(batch(event(1, input_tokens=10**30, cost_usd="1e30"), event(2), start=1 + 2 * number))

    assert report(torana)[0]["calls"] == 6


async def test_a_rollup_that_cannot_be_written_is_tried_again_later(tmp_path: Path) -> None:
    sink = RollupSink(tmp_path / "nowhere" / "rollup.sqlite3", KEEP, CLOCK)

    with pytest.raises(SinkDown):
        await sink.send(batch(event(1)))
    (tmp_path / "nowhere").mkdir()
    await sink.send(batch(event(1)))

    await sink.aclose()


async def test_a_copy_is_read_where_nothing_can_be_written(
    sink: RollupSink, rollup: Path, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1)))
    await sink.aclose()
    with out_of_reach(rollup) as copy:
        said = torana("usage", "report", "--rollup", str(copy), "--json")

    assert said.exit_code == 0, said.output
    assert len(json.loads(said.output)["rows"]) == 1


@contextmanager
def out_of_reach(file: Path) -> Iterator[Path]:
    """A copy in a folder that we may not write to: what root is not kept from, nobody is."""
    me = os.geteuid()
    with TemporaryDirectory() as folder:
        copy = Path(folder, file.name)
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o444)
        Path(folder).chmod(0o555)
        try:
            os.setresuid(me or 65534, me or 65534, -1)
            yield copy
        finally:
            os.setresuid(me, me, -1)
            Path(folder).chmod(0o755)


async def test_a_rollup_of_a_newer_version_is_neither_added_to_nor_read(
    sink: RollupSink, rollup: Path, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1)))
    await sink.aclose()
    with sqlite3.connect(rollup) as database:
        database.execute("PRAGMA user_version = 1000")

    older = RollupSink(rollup, KEEP, CLOCK)
    with pytest.raises(SinkDown, match="made by a newer version"):
        await older.send(batch(event(2)))
    await older.aclose()
    said = torana("usage", "report")

    assert (said.exit_code, said.output) == (
        1,
        f"{rollup} cannot be read: the roll-up was made by a newer version of torana\n",
    )


async def test_a_rollup_that_is_deleted_begins_anew_and_no_worker_adds_to_the_deleted_one(
    sink: RollupSink, rollup: Path, torana: Callable[..., Result]
) -> None:
    other = RollupSink(rollup, KEEP, CLOCK)
    await sink.send(batch(event(1)))
    await other.send(batch(event(2), folder="theirs"))

    for path in rollup.parent.glob("rollup.sqlite3*"):
        path.unlink()
    await sink.send(batch(event(3), start=2))
    await other.send(batch(event(4), start=2, folder="theirs"))

    assert await other.position("theirs") == Position(1, 2)
    assert [row["calls"] for row in report(torana)] == [2]
    await other.aclose()
    await sink.send(batch(event(5), start=3))
    assert [row["calls"] for row in report(torana)] == [3]


@contextmanager
def opened_by_another_worker(rollup: Path) -> Iterator[None]:
    idle = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM usage').fetchall(); "
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", idle, str(rollup)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        yield
        worker.communicate()


async def test_what_was_beside_a_deleted_rollup_spoils_no_new_one(
    sink: RollupSink, rollup: Path, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1)))
    with opened_by_another_worker(rollup):
        os.unlink(rollup)  # its -wal and -shm are left

        await sink.send(batch(event(2), start=2))

    assert [row["calls"] for row in report(torana)] == [1]


# Reports


async def test_a_report_splits_by_what_it_is_asked_for(sink: RollupSink, torana: Callable[..., Result]) -> None:
    await sink.send(
        batch(
            event(1, user="a", status="completed"),
            event(2, user="a", status="client_cancelled", source="counted"),
            event(3, user="b", cost_usd="2.5", ended=NOW - timedelta(days=1)),
            event(4, user="b", ended=NOW - timedelta(days=9)),
        )
    )

    by_user = report(torana, "--by", "user")
    by_outcome = report(torana, "--by", "outcome,user")
    by_day = report(torana, "--by", "day", "--since", "30d")
    total = report(torana, "--by", "", "--since", "30d")

    assert [(row["user"], row["calls"], row["cost_usd"]) for row in by_user] == [("b", 1, "2.5"), ("a", 2, "0.0009")]
    assert {(row["status"], row["user"]): row["uncertain"] for row in by_outcome} == {
        ("completed", "a"): 0,
        ("client_cancelled", "a"): 1,
        ("completed", "b"): 0,
    }
    days = [(NOW - timedelta(days=age)).date().isoformat() for age in (9, 1, 0)]
    assert [(row["day"], row["calls"]) for row in by_day] == list(zip(days, (1, 1, 2), strict=True))
    assert [row["calls"] for row in total] == [4]


async def test_an_unknown_price_is_told_as_unknown(sink: RollupSink, torana: Callable[..., Result]) -> None:
    await sink.send(batch(event(1, model="a", cost_usd=None), event(2, model="b", cost_usd=None), event(3, model="b")))

    rows = {row["model"]: row for row in report(torana, "--by", "model")}
    table = torana("usage", "report", "--by", "model").output

    assert (rows["a"]["cost_usd"], rows["a"]["unpriced"]) == (None, 1)
    assert (rows["b"]["cost_usd"], rows["b"]["unpriced"]) == ("0.00045", 1)
    assert "unknown" in table
    assert ">= 0.0004" in table


async def test_calls_that_took_no_time_at_all_are_in_the_report(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1), event(2, instance="two", duration_s=0.0001)))

    assert [row["instance"] for row in report(torana, "--by", "instance")] == ["one", "two"]
    assert [row["calls"] for row in report(torana, "--by", "")] == [2]


@pytest.mark.parametrize(("kept", "since"), [({"hour": 86_400.0}, "30d"), ({"minute": 3_600.0}, "3h")])
async def test_where_fine_sums_are_kept_for_a_shorter_time_than_is_asked_for_coarser_ones_answer(
    rollup: Path, torana: Callable[..., Result], kept: dict[str, float], since: str
) -> None:
    rollup.parent.mkdir()
    sink = RollupSink(rollup, KEEP | kept, CLOCK)
    before = NOW - timedelta(hours=2, minutes=30) if "minute" in kept else NOW - timedelta(days=20)
    await sink.send(batch(event(1, before), event(2)))
    await sink.aclose()

    assert [row["calls"] for row in report(torana, "--since", since)] == [2]


async def test_a_day_whose_hours_are_partly_gone_is_told_by_its_own_sum(
    rollup: Path, torana: Callable[..., Result]
) -> None:
    day = NOW.replace(hour=0, minute=0, second=0) - timedelta(days=3)
    rollup.parent.mkdir()
    sink = RollupSink(rollup, KEEP | {"hour": (NOW - day - timedelta(hours=12)).total_seconds()}, CLOCK)
    await sink.send(batch(event(1, day + timedelta(hours=6)), event(2, day + timedelta(hours=18)), event(3)))
    await sink.aclose()

    assert [row["calls"] for row in report(torana, "--since", f"{day:%Y-%m-%d}")] == [3]
    by_hour = json.loads(torana("usage", "report", "--by", "hour", "--since", "5d", "--json").output)
    assert by_hour["since"] == (day + timedelta(days=1)).isoformat()


async def test_a_report_by_hour_says_from_when_on_there_are_hours(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    before = NOW - timedelta(days=40)  # hours are kept for 30
    await sink.send(batch(event(1, before), event(2, NOW - timedelta(days=3)), event(3)))

    told = json.loads(torana("usage", "report", "--by", "hour", "--since", "50d", "--json").output)

    assert [row["calls"] for row in told["rows"]] == [1, 1]
    assert told["since"] == (NOW - timedelta(days=3)).replace(minute=0, second=0).isoformat()


async def test_a_report_by_hour_does_not_speak_of_a_time_whose_hours_are_all_gone(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1, NOW - timedelta(days=40))))

    told = json.loads(torana("usage", "report", "--json", "--by", "hour", "--since", "44d").output)

    assert (told["rows"], told["since"]) == ([], "2026-10-07T00:00:00+00:00")


async def test_fine_sums_answer_where_they_reach_back_far_enough(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    hour = NOW.replace(minute=0, second=0) - timedelta(hours=2)
    ended = [hour - timedelta(days=20), hour + timedelta(minutes=10), hour + timedelta(minutes=40)]
    await sink.send(batch(*(event(number, at) for number, at in enumerate(ended))))

    since = (hour + timedelta(minutes=30)).isoformat()
    assert [row["calls"] for row in report(torana, "--since", since)] == [1]


async def test_names_that_callers_choose_command_no_terminal_and_no_spreadsheet(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1, user="=1+1", model="\x1b[2Jm\u009b31m\rn\nx")))

    shown = torana("usage", "report", "--by", "user,model").output
    table = torana("usage", "report", "--by", "user,model", "--csv").output

    assert "=1+1  \\u001b[2Jm\\u009b31m\\u000dn\\nx" in shown
    assert not any(letter in shown + table for letter in "\x1b\u009b\r")
    assert [line["user"] for line in csv.DictReader(io.StringIO(table))] == ["'=1+1"]


async def test_a_report_as_csv_has_a_line_for_each_row(sink: RollupSink, torana: Callable[..., Result]) -> None:
    await sink.send(batch(event(1, user='with "quotes", and commas'), event(2, user="b")))

    lines = list(csv.DictReader(io.StringIO(torana("usage", "report", "--by", "user", "--csv").output)))

    assert {line["user"]: line["input_tokens"] for line in lines} == {'with "quotes", and commas': "100", "b": "100"}


async def test_a_report_on_another_time_leaves_out_what_is_not_in_it(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1), event(2, NOW - timedelta(days=3)), event(3, NOW - timedelta(days=6))))

    assert [row["calls"] for row in report(torana, "--since", "5d", "--until", "1d")] == [1]
    assert [row["calls"] for row in report(torana, "--since", "100d")] == [3]


async def test_two_spans_that_meet_in_the_middle_of_a_sum_count_nothing_twice(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    days = [datetime(2026, 9, day, 23, 15, tzinfo=UTC) for day in (1, 2, 3)]
    await sink.send(batch(*(event(number, day) for number, day in enumerate(days))))
    ends = [f"2026-09-0{day}T00:00+02:00" for day in (1, 3, 5)]  # by then only days are told apart

    found = [torana("usage", "report", "--json", "--since", since, "--until", until) for since, until in pairwise(ends)]

    told = [json.loads(each.output) for each in found]
    assert sum(row["calls"] for each in told for row in each["rows"]) == 3
    assert told[0]["until"] == told[1]["since"] == "2026-09-02T00:00:00+00:00"


async def test_more_money_than_sqlite_can_add_up_is_told_to_the_last_digit(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(*(event(number, user=f"{number}", cost_usd="9007.199254740991") for number in range(2000))))

    (row,) = report(torana, "--by", "model")

    assert row["cost_usd"] == "18014398.509481982"


async def test_roll_ups_of_several_hosts_are_added_up(
    sink: RollupSink, rollup: Path, torana: Callable[..., Result], tmp_path: Path
) -> None:
    other = RollupSink(tmp_path / "other.sqlite3", KEEP, CLOCK)
    await sink.send(batch(event(1), event(2, user="b", cost_usd=None)))
    await other.send(batch(event(3), event(4, NOW - timedelta(days=40), user="c")))
    await other.aclose()
    both = ("--rollup", str(rollup), "--rollup", str(tmp_path / "other.sqlite3"))
    (tmp_path / "bill.csv").write_text(f"day,model,calls\n{DAY},claude-sonnet-4-6,3\n")

    rows = report(torana, "--by", "user", "--since", "44d", *both, "--rollup", str(rollup))
    bill = torana("usage", "reconcile", str(tmp_path / "bill.csv"), *both)
    lost = torana("usage", "report", "--rollup", str(rollup), "--rollup", "nowhere")

    assert {row["user"]: (row["calls"], row["cost_usd"]) for row in rows} == {
        "u": (2, "0.0009"), "b": (1, None), "c": (1, "0.00045")
    }  # fmt: skip
    assert bill.exit_code == 0, bill.output
    assert (lost.exit_code, "there is no roll-up at" in lost.stderr, "nowhere" in lost.stderr) == (1, True, True)


async def test_a_roll_up_that_nobody_keeps_any_more_is_told_as_one(
    sink: RollupSink, torana: Callable[..., Result], tmp_path: Path
) -> None:
    await sink.send(batch(event(1)))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sinks.yml").write_text("- {name: rollup, type: rollup, enabled: false}\n")

    kept = torana("usage", "report", "--json")
    left = torana("usage", "report", "--json", "--catalog", str(tmp_path / "own"))

    assert (kept.exit_code, left.exit_code) == (0, 0)
    assert json.loads(left.stdout)["rows"] == json.loads(kept.stdout)["rows"] != []
    assert (kept.stderr, "no roll-up is switched on" in left.stderr) == ("", True)


async def test_a_report_may_go_by_months(sink: RollupSink, torana: Callable[..., Result]) -> None:
    moments = [datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)]
    await sink.send(batch(*(event(number, moment) for number, moment in enumerate([*moments, moments[0]]))))

    rows = report(torana, "--by", "month,instance", "--since", "2026-01-01")

    assert [(row["month"], row["calls"]) for row in rows] == [("2026-09", 2), ("2026-10", 1)]


async def test_the_calendar_may_be_asked_for_to_its_end(sink: RollupSink, torana: Callable[..., Result]) -> None:
    await sink.send(batch(event(1), event(2, datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC))))

    until_then = report(torana, "--since", "1h", "--until", "9999-12-31T23:59:59")
    last_minute = report(torana, "--since", "9999-12-31T23:59:10", "--until", "9999-12-31T23:59:59")

    assert ([row["calls"] for row in until_then], [row["calls"] for row in last_minute]) == ([1], [1])


async def test_what_a_clock_that_ran_ahead_has_counted_is_not_left_out(
    sink: RollupSink, torana: Callable[..., Result]
) -> None:
    await sink.send(batch(event(1), event(2, NOW + timedelta(hours=1), clock_jumped=True)))

    assert [row["calls"] for row in report(torana, "--since", "1h")] == [2]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("report",), 1),
        (("report", "--by", "colour"), 2),
        (("report", "--since", "yesterday"), 2),
        (("report", "--since", "0001-01-01T00:00+14:00"), 2),
        (("report", "--since", "1d", "--until", "7d"), 2),
        (("report", "--until", "20251101"), 2),
        (("report", "--csv", "--json"), 2),
        (("reconcile", "no-such-file"), 2),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(torana: Callable[..., Result], args: Any, code: int) -> None:
    result = torana("usage", *args)

    assert result.exit_code == code
    assert result.output


def test_moments_and_splits_are_read() -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)

    assert read_moment("7d", now) == datetime(2026, 11, 13, 12, tzinfo=UTC)
    assert read_moment("90m", now) == datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
    assert read_moment("2026-11-01", now) == datetime(2026, 11, 1, tzinfo=UTC)
    assert read_moment("2026-11-01T08:00:00+02:00", now) == datetime(2026, 11, 1, 6, tzinfo=UTC)
    assert read_by("outcome, model,model") == ("status", "model")
    with pytest.raises(BadQuestion):
        read_by("model; drop table usage")


# Bills

ANTHROPIC_USAGE = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
    "usage_output_tokens,web_search_count,inference_geo,speed\n"
)
ANTHROPIC_COST = (
    "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type,"
    "inference_geo,speed\n"
)
OPENAI_COST = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,quantity_unit,line_item,"
    "user_id,api_key_id,project_id,organization_id,project_name,organization_name,user_email,api_source\n"
)
OPENAI_USAGE = (
    "start_time,end_time,input_tokens,output_tokens,input_cached_tokens,num_model_requests,project_id,model\n"
)
DAY = NOW.date().isoformat()
YESTERDAY = (NOW - timedelta(days=1)).date().isoformat()
STAMP = int(datetime(NOW.year, NOW.month, NOW.day, tzinfo=UTC).timestamp())
OPENAI = {"provider": "openai", "upstream_model": "gpt-5-mini-2025-08-07"}


def pages(buckets: list[dict[str, Any]]) -> str:
    """As the usage and cost APIs answer."""
    return json.dumps({"object": "page", "data": buckets, "has_more": False, "next_page": None})


@pytest.fixture
async def counted(sink: RollupSink) -> None:
    """What we have: two calls of Claude, one of GPT, and one of another day."""
    await sink.send(
        batch(
            event(
                1, input_tokens=1000, cache_read_tokens=300, cache_write_tokens=200, output_tokens=50, cost_usd="1.5"
            ),
            event(2, input_tokens=100, output_tokens=5, cost_usd="0.25"),
            event(3, input_tokens=70, output_tokens=7, cost_usd="0.5", **OPENAI),
            event(4, NOW - timedelta(days=3)),
        )
    )


AGREE = [
    pytest.param(
        f"{ANTHROPIC_USAGE}{DAY},claude-sonnet-4-6,k,D,standard,x,600,200,0,300,55,0,global,\n", id="anthropic usage"
    ),
    pytest.param(
        f"{ANTHROPIC_COST}{DAY},Claude Sonnet 4.6,D,k,message,≤ 200k,input_no_cache,1.25,1.25,token,global,\n"
        f"{DAY},Claude Sonnet 4.6,D,k,message,≤ 200k,output,0.50,0.50,token,global,\n", id="anthropic cost",
    ),
    pytest.param(
        f"{OPENAI_COST}{STAMP},{STAMP + 86400},,,0.200000000,usd,,,\"gpt-5-mini-2025-08-07, input\",,,,,,,,\n"
        f"{STAMP},{STAMP + 86400},,,0.3,usd,,,\"gpt-5-mini-2025-08-07, output\",,,,,,,,\n"
        f"{STAMP - 86400},{STAMP},,,,,,,,,,,,,,,\n", id="openai cost",
    ),
    pytest.param(f"{OPENAI_USAGE}{STAMP},{STAMP + 86400},70,7,0,1,proj,gpt-5-mini-2025-08-07\n", id="openai usage"),
    pytest.param(
        f"{OPENAI_USAGE}{YESTERDAY}T23:00:00-08:00,,70,7,0,1,proj,gpt-5-mini-2025-08-07\n", id="another time zone"
    ),
    pytest.param(
        pages([{"start_time": STAMP - 86400, "results": []}, {"start_time": STAMP, "results": [
            {"input_tokens": 60, "output_tokens": 7, "input_cached_tokens": 0, "num_model_requests": 1,
             "input_cache_write_tokens": 0, "model": "gpt-5-mini-2025-08-07", "batch": None}]}])
        + pages([{"start_time": STAMP, "results": [
            {"input_tokens": 10, "num_model_requests": 0, "model": "gpt-5-mini-2025-08-07"}]}]),
        id="openai usage api, two pages",
    ),
    pytest.param(
        pages([{"start_time": STAMP, "results": [
            {"amount": {"value": 0.2, "currency": "usd"}, "line_item": "gpt-5-mini-2025-08-07, input"},
            {"amount": {"value": 0.3, "currency": "usd"}, "line_item": "gpt-5-mini-2025-08-07, output"}]}]),
        id="openai costs api",
    ),
    pytest.param(
        pages([{"starting_at": f"{DAY}T00:00:00Z", "results": [
            {"uncached_input_tokens": 600, "cache_read_input_tokens": 300, "output_tokens": 55, "model":
             "claude-sonnet-4-6", "cache_creation": {"ephemeral_5m_input_tokens": 150,
             "ephemeral_1h_input_tokens": 50}}]}]),
        id="anthropic usage report",
    ),
    pytest.param(
        pages([{"starting_at": f"{DAY}T00:00:00Z", "results": [
            {"amount": "125.0", "currency": "USD", "model": "claude-sonnet-4-6", "token_type": "output_tokens"},
            {"amount": "50.0", "currency": "USD", "model": "claude-sonnet-4-6"}]}]),
        id="anthropic cost report, in cents",
    ),
]  # fmt: skip


@pytest.mark.parametrize("bill", AGREE)
@pytest.mark.usefixtures("counted")
def test_a_bill_that_agrees_has_no_difference(torana: Callable[..., Result], tmp_path: Path, bill: str) -> None:
    (tmp_path / "bill.csv").write_text("\ufeff" + bill)

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"))

    assert result.exit_code == 0, result.output
    assert "no difference" in result.output


@pytest.mark.usefixtures("counted")
def test_differences_are_named_by_day_and_model(torana: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_text(
        f"{ANTHROPIC_USAGE}{DAY},claude-sonnet-4-6,k,D,standard,x,600,200,0,299,55,0,global,\n"
        f"{DAY},claude-opus-5,k,D,standard,x,10,0,0,0,1,0,global,\n"
    )

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--json")

    assert result.exit_code == 1
    differences = json.loads(result.output)["differences"]
    assert [(each["model"], each["measure"], each["difference"], each["why"]) for each in differences] == [
        ("claude-opus-5", "input_tokens", "-10", "only on the bill"),
        ("claude-opus-5", "output_tokens", "-1", "only on the bill"),
        ("claude-sonnet-4-6", "input_tokens", "1", "differs"),
        ("claude-sonnet-4-6", "cache_read_tokens", "1", "differs"),
    ]


@pytest.mark.usefixtures("counted")
def test_what_the_bill_does_not_know_is_named_too(torana: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_text(f"date,name,spent\n{DAY},gpt-5-mini,0.5\n")
    columns = "day=date,model=name,cost_usd=spent"

    ours = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--columns", columns, "--json")
    theirs = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--columns", columns, "--provider", "openai")

    (difference,) = json.loads(ours.output)["differences"]
    assert (difference["model"], difference["why"]) == ("claude-sonnet-4-6", "only here")
    assert Decimal(difference["counted"]) == Decimal("1.75")
    assert theirs.exit_code == 0, theirs.output


@pytest.mark.usefixtures("counted")
def test_money_that_was_asked_for_no_model_is_named(torana: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_text(
        f"{ANTHROPIC_COST}{DAY},Claude Sonnet 4.6,D,k,message,≤ 200k,output,1.75,1.75,token,global,\n"
        f"{DAY},,D,k,message,,,0.12,0.12,web_search,global,\n"
    )

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--json")

    (difference,) = json.loads(result.output)["differences"]
    assert (difference["model"], difference["why"], difference["difference"]) == (None, "only on the bill", "-0.12")


@pytest.mark.usefixtures("counted")
def test_a_bill_that_names_no_model_is_compared_day_by_day(torana: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_text(f"{OPENAI_COST}{STAMP},{STAMP + 86400},,,0.5,usd,,,,,,,org,,,,\n")

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"))

    assert result.exit_code == 0, result.output
    assert "names no model" in result.stderr


async def test_calls_that_failed_may_be_on_the_bill_or_not(
    sink: RollupSink, torana: Callable[..., Result], tmp_path: Path
) -> None:
    failed = {"status": "upstream_error", "input_tokens": 0, "output_tokens": 0, **OPENAI}
    await sink.send(batch(event(1, **OPENAI), event(2, **failed), event(3, **failed)))

    def agrees(calls: int) -> bool:
        (tmp_path / "bill.csv").write_text(f"{OPENAI_USAGE}{STAMP},0,100,10,0,{calls},p,gpt-5-mini-2025-08-07\n")
        return torana("usage", "reconcile", str(tmp_path / "bill.csv")).exit_code == 0

    assert [agrees(calls) for calls in (0, 1, 2, 3, 4)] == [False, True, True, True, False]


async def test_calls_that_may_be_why_a_bill_differs_are_told(
    sink: RollupSink, torana: Callable[..., Result], tmp_path: Path
) -> None:
    await sink.send(batch(event(1), event(2, source="counted", status="client_cancelled"), event(3, cost_usd=None)))
    (tmp_path / "bill.csv").write_text(f"day,model,output_tokens,cost_usd\n{DAY},claude-sonnet-4-6,90,1.00\n")

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--json")

    tokens, cost = json.loads(result.output)["differences"]
    assert (tokens["why"], cost["why"]) == ("differs, 1 uncertain", "differs, 1 unpriced, 1 uncertain")


@pytest.mark.usefixtures("counted")
def test_amounts_that_are_rounded_to_cents_line_by_line_may_add_up_to_a_little_more(
    torana: Callable[..., Result], tmp_path: Path
) -> None:
    def agrees(*amounts: str) -> bool:
        lines = "".join(f"{DAY},claude-sonnet-4-6,{amount}\n" for amount in amounts)
        (tmp_path / "bill.csv").write_text("day,model,cost_usd\n" + lines)
        return torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--provider", "anthropic").exit_code == 0

    assert agrees("1.00", "0.50", "0.12", "0.11")
    assert agrees('"1,001.75"', "$-1000")
    assert not agrees("1.00", "0.50", "0.11", "0.11")
    assert not agrees("1.000", "0.500", "0.120", "0.110")


async def test_a_day_without_a_line_between_two_that_have_one_is_a_day_without_use(
    sink: RollupSink, torana: Callable[..., Result], tmp_path: Path
) -> None:
    days = [NOW - timedelta(days=age) for age in (3, 2, 1, 0)]
    await sink.send(batch(*(event(number, day, input_tokens=7) for number, day in enumerate(days))))
    lines = "".join(f"{day:%Y-%m-%d},claude-sonnet-4-6,7\n" for day in (days[1], days[3]))
    (tmp_path / "bill.csv").write_text("day,model,input_tokens\n" + lines)

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--json")

    (difference,) = json.loads(result.output)["differences"]
    assert (difference["day"], difference["why"]) == (f"{days[2]:%Y-%m-%d}", "only here")


@pytest.mark.parametrize(
    ("bill", "args"),
    [
        pytest.param(
            "lineItem/UsageStartDate,product/ProductName,lineItem/UnblendedCost\n"
            f"{DAY}T10:00:00Z,Claude Sonnet 4.6 (Amazon Bedrock Edition),0.00045\n",
            ("day=lineItem/UsageStartDate,model=product/ProductName,cost_usd=lineItem/UnblendedCost",
             "us.anthropic.claude-sonnet-4-6-v1:0"),
            id="aws",
        ),
        pytest.param(
            f"date,meterName,costInUsd\n{NOW:%m/%d/%Y},gpt 4.1 Inp glbl Tokens,0.0003\n"
            f"{NOW:%m/%d/%Y},gpt 4.1 Outp glbl Tokens,0.00015\n",
            ("day=date,model=meterName,cost_usd=costInUsd", "gpt-4.1",
             "--model", "gpt 4.1 Inp glbl Tokens=gpt-4.1", "--model", "gpt 4.1 Outp glbl Tokens=gpt-4.1"),
            id="azure",
        ),
        pytest.param(
            f"[{{\"usage_start_time\": \"{DAY} 08:00:00 UTC\", \"sku\": \"Gemini 2.5 Flash GA Text Input\","
            ' "cost": 0.00045}]',
            ("day=usage_start_time,model=sku,cost_usd=cost", "gemini-2.5-flash",
             "--model", "Gemini 2.5 Flash GA Text Input=gemini-2.5-flash"),
            id="google, as json",
        ),
    ],
)  # fmt: skip
async def test_bills_of_clouds_are_read_with_their_columns_and_names_declared(
    sink: RollupSink, torana: Callable[..., Result], tmp_path: Path, bill: str, args: tuple[str, ...]
) -> None:
    columns, model, *renamed = args
    await sink.send(batch(event(1, upstream_model=model)))
    (tmp_path / "bill.csv").write_text(bill)

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--columns", columns, "--usd", "0", *renamed)

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("billed", "counted"),
    [
        ("Claude Haiku 4.5", "claude-haiku-4-5-20251001"),
        ("Claude Haiku 4.5 (Amazon Bedrock Edition)", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("claude-opus-4-6", "global.anthropic.claude-opus-4-6-v1"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5@20250929"),
        ("gpt-5-mini-2025-08-07", "openai/gpt-5-mini"),
    ],
)
def test_a_model_has_one_name(billed: str, counted: str) -> None:
    assert model_name(billed) == model_name(counted)


def test_models_that_are_others_keep_their_names() -> None:
    names = [
        "deepseek-v3",
        "deepseek-v2",
        "amazon.titan-embed-text-v1",
        "amazon.titan-embed-text-v2:0",
        "gpt-5",
        "gpt-4",
    ]

    assert len(set(map(model_name, names))) == len(names)


@pytest.mark.usefixtures("counted")
def test_a_bill_of_the_last_day_that_there_is_is_held_against_what_we_have(
    torana: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "bill.csv").write_text("day,model,calls\n9999-12-31,gpt,1\n")

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"))

    assert (result.exit_code, "only on the bill" in result.stdout) == (1, True)


@pytest.mark.usefixtures("counted")
def test_a_bill_that_cannot_be_whole_is_told(torana: Callable[..., Result], tmp_path: Path) -> None:
    bill = pages([{"start_time": STAMP, "results": [{"amount": {"value": 0.5}, "line_item": "gpt-5-mini"}]}])
    (tmp_path / "bill.json").write_text(bill.replace('"has_more": false', '"has_more": true'))
    (tmp_path / "bill.csv").write_text(f"{OPENAI_USAGE}{STAMP},0,70,7,0,1,p,gpt-5-mini\n")

    cut = torana("usage", "reconcile", str(tmp_path / "bill.json"))
    (tmp_path / "bill.json").write_text(f"[{bill},{bill.replace('false', 'true')}]")
    cut_in_a_list = torana("usage", "reconcile", str(tmp_path / "bill.json"))
    mistaken = torana("usage", "reconcile", str(tmp_path / "bill.csv"), "--provider", "open_ai")

    assert "there are more (has_more)" in cut.stderr
    assert "there are more (has_more)" in cut_in_a_list.stderr
    assert "no call of open_ai was counted in these days, but of anthropic, openai" in mistaken.stderr


@pytest.mark.parametrize(
    "bill",
    [
        f"start_time,end_time,start_time_iso,end_time_iso\n{STAMP},{STAMP + 86400},,\n",
        pages([{"starting_at": f"{DAY}T00:00:00Z", "ending_at": f"{DAY}T00:00:00Z", "results": []}]),
        OPENAI_COST,
    ],
)
@pytest.mark.usefixtures("counted")
def test_a_bill_of_days_without_use_says_so(torana: Callable[..., Result], tmp_path: Path, bill: str) -> None:
    (tmp_path / "bill.csv").write_text(bill)

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"))

    assert (result.exit_code, "holds no line with a day and an amount" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("bill", "problem"),
    [
        ("{", "is no JSON"),
        ('{"data": [{"colour": "red"}]}', "no known export"),
        ("[" * 100_000, "is no JSON"),
        ("colour,shape\nred,round\n", "no known export"),
        (f"{OPENAI_USAGE}{STAMP},0,seventy,7,0,1,p,gpt\n", "bill.csv:2: 'seventy' is no number"),
        (f'day,model,cost_usd\n{DAY},gpt,"0,45"\n', "'0,45' is no number"),
        (f"{OPENAI_USAGE}someday,0,70,7,0,1,p,gpt\n", "bill.csv:2: 'someday' is no day"),
        (f"{OPENAI_USAGE}{STAMP * 10**9},0,70,7,0,1,p,gpt\n", f"bill.csv:2: '{STAMP * 10**9}' is no day"),
        (f"{OPENAI_USAGE}{10**20},0,70,7,0,1,p,gpt\n", "is no day"),
        (f"day,model,cost_usd\n{DAY},gpt,1e9999999\n", "'1e9999999' is no number"),
        (f"day,model,cost_usd\n{DAY},gpt,1e-9999999\n", "'1e-9999999' is no number"),
        (f"{OPENAI_USAGE}{STAMP},0,NaN,7,0,1,p,gpt\n", "is no number"),
    ],
)
@pytest.mark.usefixtures("counted")
def test_a_file_that_is_no_bill_is_refused_with_its_place(
    torana: Callable[..., Result], tmp_path: Path, bill: str, problem: str
) -> None:
    (tmp_path / "bill.csv").write_text(bill)

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"))

    assert result.exit_code == 2
    assert problem in result.output.replace("\n", " ")


@pytest.mark.parametrize("option", ["--usd", "--tolerance"])
@pytest.mark.parametrize("amount", ["much", "-1", "nan", "inf"])
@pytest.mark.usefixtures("counted")
def test_a_tolerance_that_is_no_amount_is_wrong_usage(
    torana: Callable[..., Result], tmp_path: Path, option: str, amount: str
) -> None:
    (tmp_path / "bill.csv").write_text(f"{OPENAI_USAGE}{STAMP},0,70,7,0,1,p,gpt\n")

    result = torana("usage", "reconcile", str(tmp_path / "bill.csv"), option, amount)

    assert result.exit_code == 2
    assert f"Invalid value for '{option}': '{amount}' is no amount" in result.output.replace("\n", " ")
