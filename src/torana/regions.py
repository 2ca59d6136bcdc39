"""Regions, as rules of residency name them."""

from collections.abc import Iterable


def is_in(region: str, allowed: Iterable[str]) -> bool:
    """`eu-*` allows whatever begins with `eu-`; who does not say where they are is in none."""
    return bool(region) and any(
        region.startswith(name[:-1]) if name.endswith("*") else region == name for name in allowed
    )
