"""Which of the catalogue's models may be used, and who takes over from those that have ended.

registered   known; used by `torana models test` alone
staging      used where it is asked for by name
production   used, and where defaults and menus lead to
deprecated   as production, until the first moment (UTC) of its day; from then on its successor answers
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from torana.catalog.model_records import ModelRecord

NEVER = float("inf")


class Stages:
    """The lives of one catalogue's models. Times are Unix seconds."""

    def __init__(self, models: Mapping[str, ModelRecord]) -> None:
        self.models = models
        self._ends = {
            name: start_of(record.deprecation.deprecation_date)
            for name, record in models.items()
            if record.stage == "deprecated" and record.deprecation is not None
        }

    def next_end(self, now: float) -> float:
        """When the next model ends; until then every answer stays as it is."""
        return min((end for end in self._ends.values() if end > now), default=NEVER)

    def end_of(self, name: str) -> float:
        return self._ends.get(name, NEVER)

    def heirs(self, record: ModelRecord, now: float) -> list[ModelRecord]:
        """The record and those who take over, the one to be used last."""
        line = [record]
        while self.end_of(line[-1].name) <= now:
            line.append(self.models[line[-1].successor])
        return line


def start_of(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
