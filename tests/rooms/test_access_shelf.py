"""Issuers' keys among the workers of one server: they ask as often as one (contract 2.5, JW4, JW5)."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.support.access import GITLAB, Access, jwk
from tests.support.clock import HandClock
from tests.support.waiting import eventually

from torana.access.keys import KeyRing
from torana.access.shelf import Shelf, Shelved

OLD, NEW = 91, 92


class Workers:
    """Two rings of one server, at the same issuer and with the same clock."""

    def __init__(self, folder: Path) -> None:
        access = Access(customer_portal_url="")
        self.clock: HandClock = access.clock
        self.fetcher = access.fetcher
        self.fetcher.publish(GITLAB, jwk(OLD, "old"))
        self.rings = [
            KeyRing(
                access.settings, access.local, access.fetcher, access.clock, unknown_key_wait_s=1, shelf=Shelf(folder)
            )
            for _ in range(2)
        ]

    async def ask(self, worker: int) -> bool:
        return await self.rings[worker].refetch(GITLAB)

    def kids(self, worker: int) -> list[str]:
        return [key.kid for key in self.rings[worker].candidates(GITLAB, "")]

    @property
    def fetches(self) -> int:
        return sum(url.endswith("/keys") for _, url in self.fetcher.requests)


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


async def test_a_key_that_one_worker_fetched_is_there_for_the_other_without_a_question(workers: Workers) -> None:
    assert await workers.ask(0)
    assert await workers.ask(1)

    assert workers.kids(0) == workers.kids(1) == ["old"]
    assert workers.fetches == 1


async def test_workers_that_meet_an_unknown_key_at_once_share_one_question(workers: Workers) -> None:
    workers.fetcher.held = asyncio.Event()
    asking = [asyncio.create_task(workers.ask(worker)) for worker in (0, 1)]
    await eventually(lambda: _true(bool(workers.fetcher.requests)))
    workers.fetcher.held.set()

    assert await asyncio.gather(*asking) == [True, True]
    assert workers.fetches == 1


async def test_after_the_interval_either_may_ask_again_and_a_key_taken_back_is_gone_for_both(workers: Workers) -> None:
    await workers.ask(0)
    await workers.ask(1)
    workers.fetcher.publish(GITLAB, jwk(NEW, "new"))
    workers.clock.advance(29)
    assert not await workers.ask(1)
    workers.clock.advance(1)

    assert await workers.ask(1)
    assert await workers.ask(0)

    assert workers.kids(0) == workers.kids(1) == ["new"]
    assert workers.fetches == 2


async def test_what_others_fetched_is_taken_over_while_nobody_asks(workers: Workers) -> None:
    await workers.ask(0)
    workers.fetcher.answers.clear()
    workers.rings[1].start()

    await eventually(lambda: _true(workers.kids(1) == ["old"]))
    await workers.rings[1].aclose()


async def test_a_question_that_ended_badly_holds_the_other_up_no_longer_than_its_own_would(workers: Workers) -> None:
    workers.fetcher.answers.clear()

    assert not await workers.ask(0)
    assert not await workers.ask(1)
    for ring in workers.rings:
        await ring.aclose()


def test_only_our_own_files_are_believed(tmp_path: Path) -> None:
    shelf, answer = Shelf(tmp_path), Shelved(GITLAB, [], 1.0)
    shelf.put(GITLAB, answer)
    (file,) = tmp_path.iterdir()
    kept = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600

    assert shelf.take("https://another.example") is None
    file.write_bytes(b"{")
    assert shelf.take(GITLAB) is None
    file.unlink()
    (tmp_path / "planted").write_bytes(kept)
    os.symlink(tmp_path / "planted", file)
    assert shelf.take(GITLAB) is None
    file.unlink()
    shelf.put(GITLAB, answer)
    assert shelf.take(GITLAB) == answer
    assert shelf.take(GITLAB) is None  # nothing new


async def _true(value: bool) -> bool:
    return value


@pytest.mark.parametrize("every_s", [0.1, 0.2, 0.3, 29.9])
def test_the_first_to_ask_may_whatever_the_time_between_two_questions(tmp_path: Path, every_s: float) -> None:
    assert Shelf(tmp_path).claim(GITLAB, 47_000.123, every_s) is None
    assert Shelf(tmp_path).claim(GITLAB, 47_000.124, every_s) == 47_000.123
