"""AIGW_MODEL_ENGINE_LIMITS, as gauges show it (contract 15)."""

from collections.abc import Iterable, Mapping
from typing import Any

from torana.telemetry import families
from torana.telemetry.families import Family
from torana.telemetry.shards import Labels

_GAUGES = {
    "concurrency": families.MAX_CONCURRENT,
    "input_tokens": families.MAX_INPUT,
    "output_tokens": families.MAX_OUTPUT,
    "total_tokens": families.MAX_TOTAL,
}


def read_engine_limits(limits: Mapping[str, Any]) -> Iterable[tuple[Family, Labels, float]]:
    """Gauge, its labels (engine, model), and the limit; a bare number is a concurrency (17.x)."""
    for engine, models in limits.items():
        for model, value in models.items():
            found = value if isinstance(value, Mapping) else {"concurrency": value}
            for kind, number in found.items():
                yield _GAUGES[kind], (engine, model), float(number)
