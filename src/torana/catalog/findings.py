"""What the cross checks found: one line `file:line: name: what, expected` for each fault."""

from collections.abc import Container, Iterable

from torana.catalog.snapshot import Catalogue


class Findings:
    """Problems of one catalogue, each with the place of the record that has it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.places = catalogue.places
        self.problems: list[str] = []

    def need(self, key: str, what: str, names: Iterable[str], known: Container[str]) -> None:
        for name in names:
            if name not in known:
                self.add(key, f"unknown {what} `{name}`", f"expected the name of a known {what}")

    def add(self, key: str, wrong: str, expected: str) -> None:
        self.add_at(self.places[key], key.partition(" ")[2], wrong, expected)

    def add_at(self, place: str, name: str, wrong: str, expected: str) -> None:
        self.problems.append(f"{place}: {name}: {wrong}, {expected}")
