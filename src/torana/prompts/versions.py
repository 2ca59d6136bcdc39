"""Versions of prompts and the constraints that clients send: `^`, `~`, ranges, wildcards, exact pins.

The grammar is Poetry's, without epochs, local parts and post-releases. Ordering is that of PEP 440:
1.0.0-dev < 1.0.0-alpha < 1.0.0-beta < 1.0.0-rc < 1.0.0.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torana.errors import Invalid

DEFAULT_CONSTRAINT = "^1.0.0"
_MAX_CHARS = 200

_STAGES = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}
_NO_DEV = 1 << 62
"""Stands for "no dev part": sorts after every dev release of the same version."""

_VERSION = (
    r"v?(?P<release>[0-9]+(?:\.[0-9]+)*)"
    r"(?:[-_.]?(?P<stage>alpha|beta|preview|pre|rc|a|b|c)[-_.]?(?P<stage_number>[0-9]*))?"
    r"(?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_number>[0-9]*))?"
)
_CLAUSE = re.compile(rf"(?P<op>\^|~=|~|!=|==?|>=?|<=?)?{_VERSION}(?P<wild>(?:\.\*)+)?", re.ASCII)
_ANYTHING = re.compile(r"v?[x*](?:\.[x*])*")


class Version(NamedTuple):
    """Compares as a tuple; `release` is without trailing zeros, so that 1.0 is 1.0.0."""

    release: tuple[int, ...]
    stage: tuple[int, int]
    dev: int

    @property
    def is_stable(self) -> bool:
        return self.stage[0] == 3

    def number(self, index: int) -> int:
        return self.release[index] if index < len(self.release) else 0


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a client accepts. `pin` is set when it names exactly one version."""

    alternatives: tuple[tuple[Callable[[Version], bool], ...], ...]
    pin: Version | None = None

    def allows(self, version: Version) -> bool:
        return any(all(test(version) for test in tests) for tests in self.alternatives)


def read_version(text: str) -> Version:
    """Raises ValueError for what is no version."""
    match = _CLAUSE.fullmatch(text.lower())
    if match is None or match["op"] or match["wild"]:
        raise ValueError(f"{text!r} is no version")
    return _version_of(match)


def read_constraint(text: str) -> Constraint:
    """Raises Invalid, 422 with the contract's text, when `text` is no constraint."""
    if len(text) > _MAX_CHARS:
        raise _invalid()
    alternatives = []
    for part in re.split(r"\|\|?", text.lower()):
        joined = re.sub(r"([\^~=<>])\s+", r"\1", part.strip().rstrip(",").rstrip())
        # `1.x` is as common a way to write `1.*`.
        joined = re.sub(r"(?<=\d)\.x\b", ".*", joined)
        alternatives.append(tuple(_read_clause(clause) for clause in re.split(r"\s*,\s*|\s+", joined)))
    tests = tuple(tuple(test for test, _ in clauses) for clauses in alternatives)
    return Constraint(tests, alternatives[0][0][1] if len(alternatives) == len(alternatives[0]) == 1 else None)


def read_versions(texts: Iterable[str]) -> dict[Version, str]:
    """Raises ValueError for what is no version."""
    return {read_version(text): text for text in texts}


def pick(constraint: Constraint, versions: Mapping[Version, str]) -> str | None:
    """The text of the version to use (contract 8.4); None when a range allows nothing that is there.

    A pin selects its file, pre-release or not; one without a file goes to the nearest stable version
    of its major, else to the highest stable one.
    """
    pin = constraint.pin
    if pin is not None and pin in versions:
        return versions[pin]
    stable = [version for version in versions if version.is_stable]
    if pin is None:
        return _text_of_highest(versions, [version for version in stable if constraint.allows(version)])
    of_major = [version for version in stable if version.number(0) == pin.number(0)]
    if not of_major:
        return _text_of_highest(versions, stable)
    # Of two that are equally near the higher one; stable versions of one major differ in minor or patch.
    return versions[min(sorted(of_major, reverse=True), key=lambda version: _distance(version, pin))]


def _text_of_highest(versions: Mapping[Version, str], allowed: list[Version]) -> str | None:
    return versions[max(allowed)] if allowed else None


def _distance(one: Version, other: Version) -> tuple[int, ...]:
    return tuple(abs(one.number(index) - other.number(index)) for index in (1, 2))


def _read_clause(clause: str) -> tuple[Callable[[Version], bool], Version | None]:
    """The test that `clause` means, and the version if it is a pin."""
    if _ANYTHING.fullmatch(clause):
        return (lambda version: True), None
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        raise _invalid()
    op, version = match["op"] or "==", _version_of(match)
    numbers = [int(number) for number in match["release"].split(".")]
    if match["wild"]:
        if op in ("^", "~", "~=") or not version.is_stable:
            raise _invalid()
        if op in ("=", "==", "!="):
            inside = _between(version._replace(stage=(-1, 0), dev=0), _raised(numbers, len(numbers) - 1))
            return (inside if op != "!=" else lambda other: not inside(other)), None
    if op == "^":
        return _between(version, _raised(numbers, _caret_index(numbers))), None
    if op == "~":
        return _between(version, _raised(numbers, min(len(numbers) - 1, 1))), None
    if op == "~=":
        return _between(version, _raised(numbers, max(len(numbers) - 2, 0))), None
    if op in ("=", "=="):
        return (lambda other: other == version), version
    tests: dict[str, Callable[[Version], bool]] = {
        "!=": lambda other: other != version,
        ">": lambda other: other > version,
        ">=": lambda other: other >= version,
        # `<2.0.0` leaves out the pre-releases of 2.0.0 too.
        "<": lambda other: other < (_raised(numbers, None) if version.is_stable else version),
        "<=": lambda other: other <= version,
    }
    return tests[op], None


def _between(low: Version, high: Version) -> Callable[[Version], bool]:
    return lambda version: low <= version < high


def _caret_index(numbers: list[int]) -> int:
    """Which number may not change: the first that is not zero, among the three that count."""
    for index, number in enumerate(numbers[:2]):
        if number:
            return index
    return min(len(numbers) - 1, 2)


def _raised(numbers: list[int], index: int | None) -> Version:
    """The first dev release of the version with the number at `index` raised by one."""
    release = numbers if index is None else [*numbers[:index], numbers[index] + 1]
    return Version(_stripped(release), (-1, 0), 0)


def _version_of(match: re.Match[str]) -> Version:
    release = _stripped([int(number) for number in match["release"].split(".")])
    dev = int(match["dev_number"] or 0) if match["dev"] else _NO_DEV
    if match["stage"]:
        return Version(release, (_STAGES[match["stage"]], int(match["stage_number"] or 0)), dev)
    # A dev release without a stage comes before every alpha.
    return Version(release, (-1, 0) if match["dev"] else (3, 0), dev)


def _stripped(release: list[int]) -> tuple[int, ...]:
    while release and release[-1] == 0:
        release = release[:-1]
    return tuple(release)


def _invalid() -> Invalid:
    return Invalid(("prompt_version",), "Invalid version constraint")
