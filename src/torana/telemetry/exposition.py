"""Figures → the text that Prometheus reads (exposition format 0.0.4).

Ours rather than prometheus_client's: importing that costs 0.1 s and 5 MB, at the first scrape.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from torana.telemetry.families import Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Series = tuple[tuple[str, ...], Sequence[float]]


def write_exposition(families: Mapping[Family, Sequence[Series]]) -> bytes:
    """All families, those without a series included, so that a scrape shows what there is."""
    lines: list[str] = []
    for family, series in families.items():
        lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}")
        for values, numbers in series:
            labels = [f'{name}="{_escape(value)}"' for name, value in zip(family.labels, values, strict=True)]
            lines += (
                _histogram(family, labels, numbers) if family.kind == "histogram" else _plain(family, labels, numbers)
            )
    return "\n".join([*lines, ""]).encode()


def _plain(family: Family, labels: list[str], numbers: Sequence[float]) -> Iterator[str]:
    yield f"{family.name}{_braces(labels)} {_number(numbers[0])}"


def _histogram(family: Family, labels: list[str], numbers: Sequence[float]) -> Iterator[str]:
    *counts, total = numbers
    bounds = [*(repr(bound) for bound in family.buckets), "+Inf"]
    at_most = [_number(number) for number in accumulate(counts)]
    for bound, number in zip(bounds, at_most, strict=True):
        bucket = _braces([*labels, f'le="{bound}"'])
        yield f"{family.name}_bucket{bucket} {number}"
    yield f"{family.name}_count{_braces(labels)} {at_most[-1]}"
    yield f"{family.name}_sum{_braces(labels)} {_number(total)}"


def _braces(labels: list[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""


def _number(value: float) -> str:
    return repr(int(value)) if value.is_integer() else repr(value)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
