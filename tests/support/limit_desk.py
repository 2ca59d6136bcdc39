"""Limits over a table, asked without HTTP and without waiting, with a clock to move."""

from dataclasses import replace
from typing import Any

from tests.support.clock import HandClock

from torana.caller import Caller
from torana.catalog.load import load_catalogue
from torana.catalog.records import LimitRecord
from torana.catalog.snapshot import Catalogue
from torana.limits.here import Here
from torana.limits.hold import Hold
from torana.limits.limits import Limits
from torana.limits.reached import LimitReached
from torana.limits.rules import Call
from torana.limits.spent import Spent
from torana.limits.table import Table
from torana.telemetry.metrics import Known, Metrics

SHIPPED = load_catalogue()


def catalogue(*limits: str | LimitRecord) -> Catalogue:
    records = [
        each if isinstance(each, LimitRecord) else LimitRecord(name=f"limit-{number}", limit=each)
        for number, each in enumerate(limits)
    ]
    return replace(SHIPPED, limits={record.name: record for record in records}, features={})


class Desk:
    """Limits over one table, and a clock to move."""

    def __init__(self, *limits: str | LimitRecord, table: Table | None = None, clock: HandClock | None = None) -> None:
        self.clock = clock or HandClock(1_700_006_400.0)
        self.table = table or Table(1024)
        self.metrics = Metrics(Known())
        self.limits = Limits(catalogue(*limits), Here(self.table, self.clock), self.clock, self.metrics)

    def ask(self, user: str = "mia", instance: str = "acme", body_bytes: int = 0, **spent: int) -> Hold | LimitReached:
        call = Call(Caller(instance_id=instance), user, model="m")
        holding = self.limits.hold(call, lambda: Spent(**{"cost": 0, **spent}), body_bytes)
        try:
            holding.send(None)
        except StopIteration as done:
            found: Hold = done.value
            return found
        except LimitReached as reached:
            return reached
        raise AssertionError("nothing waits in memory")

    def passes(self, count: int, **asked: Any) -> int:
        return sum(isinstance(self.ask(**asked), Hold) for _ in range(count))

    def settle(self, hold: Hold, **spent: int) -> None:
        self.limits.settle(hold, Spent(**{"cost": 0, **spent}))
