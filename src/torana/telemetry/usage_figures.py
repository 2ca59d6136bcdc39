"""The figures of the usage records: what is durable, what is not, and how long that takes."""

from bisect import bisect_left

from torana.telemetry import families
from torana.telemetry.shards import Shards


class UsageFigures:
    """Counts of one worker."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._values = shards.values
        self._records = shards.place(families.USAGE_RECORDS, ())
        self._at_risk = shards.place(families.USAGE_AT_RISK, ())
        self._lost = shards.place(families.USAGE_LOST, ())
        self._damaged = shards.place(families.USAGE_DAMAGED, ())
        self._stuck = shards.place(families.USAGE_STUCK, ())
        self._bytes = shards.place(families.USAGE_SPOOL_BYTES, ())
        self._full = shards.place(families.USAGE_SPOOL_FULL, ())
        self._seconds = shards.place(families.USAGE_SYNC_SECONDS, ())

    def synced(self, records: int, seconds: float) -> None:
        """One group of records has become durable."""
        self._values[self._records] += records
        self._values[self._seconds + bisect_left(families.SYNC_SECONDS, seconds)] += 1
        self._values[self._seconds + len(families.SYNC_SECONDS) + 1] += seconds

    def at_risk(self, records: int) -> None:
        """Calls have ended whose records the disk did not take."""
        self._values[self._at_risk] += records

    def lost(self, records: int) -> None:
        self._values[self._lost] += records

    def damaged(self, stretches: int) -> None:
        self._values[self._damaged] += stretches

    def spool(self, stuck: int, size_bytes: int, *, is_full: bool) -> None:
        """The state of this worker's spool."""
        self._values[self._stuck] = stuck
        self._values[self._bytes] = size_bytes
        self._values[self._full] = float(is_full)

    def full_elsewhere(self) -> int:
        """How many other workers are not sure to find space."""
        return round(sum(self._shards.of_siblings(self._full)))


class SinkFigures:
    """Counts of one worker's way to one sink."""

    def __init__(self, shards: Shards, sink: str) -> None:
        self._values = shards.values
        labels = (sink,)
        self._delivered = shards.place(families.USAGE_DELIVERED, labels)
        self._retries = shards.place(families.USAGE_RETRIES, labels)
        self._parked = shards.place(families.USAGE_PARKED, labels)
        self._withheld = shards.place(families.USAGE_WITHHELD, labels)
        self._behind = shards.place(families.USAGE_BEHIND, labels)

    def delivered(self, records: int) -> None:
        self._values[self._delivered] += records

    def retried(self) -> None:
        self._values[self._retries] += 1

    def parked(self, records: int) -> None:
        self._values[self._parked] += records

    def withheld(self, records: int) -> None:
        self._values[self._withheld] += records

    def behind(self, seconds: float) -> None:
        self._values[self._behind] = round(seconds, 1)
