"""What the cross checks found: one line `file:line: name: what, expected` for each fault."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torana.catalog.document import Document, nearest
from torana.catalog.snapshot import Catalogue, read_text


class Findings:
    """Problems of one catalogue, each with the place of the record that has it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.places = catalogue.places
        self.problems: list[str] = []

    def need(self, key: str, what: str, names: Iterable[str], known: Collection[str], member: str = "") -> None:
        for name in names:
            if name not in known:
                hint = nearest(name, known, f"expected the name of a known {what}")
                self.add(key, f"unknown {what} `{name}`", hint, member, mention=name)

    def add(self, key: str, wrong: str, expected: str, member: str = "", mention: str = "") -> None:
        """
        member   of a feature, whose line is told instead of the file's first
        mention  a name that the record holds, whose line is told instead of the record's first
        """
        kind, _, name = key.partition(" ")
        place = self.places[key]
        if kind == "features":
            place = member_place(self.places, name, member)
        elif mention:
            file, _, line = place.rpartition(":")
            place = f"{file}:{Document(file, read_text(Path(file))).line_naming(mention, int(line))}"
        self.problems.append(f"{place}: {name}: {wrong}, {expected}")


def member_place(places: Mapping[str, str], feature: str, member: str) -> str:
    """`file:line` of a member of a feature; of the file's first line where the member is left out."""
    file = places[f"features {feature}"].rpartition(":")[0]
    document = Document(file, read_text(Path(file)))
    return f"{file}:{document.line(member) if document.has(member) else 1}"
