"""YAML → checked records. The shipped directory first, then each overlay; the later one wins."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from torana.catalog.check import check_catalogue
from torana.catalog.document import Document, nearest
from torana.catalog.feature_file import read_feature
from torana.catalog.limit_file import wrong_limit
from torana.catalog.model_records import ModelsFile, ProviderRecord
from torana.catalog.records import DenyRecord, FeatureRecord, LimitRecord, SinkRecord, UnitPrimitive
from torana.catalog.sink_file import wrong_sink
from torana.catalog.snapshot import Catalogue, PromptSource, read_text
from torana.errors import BadCatalogue

__all__ = ["Catalogue", "PromptSource", "fingerprint", "load_catalogue", "overlay_paths", "read_catalogue"]

SHIPPED = Path(__file__).parent

_LISTS: dict[str, Any] = {
    "unit_primitives": tuple[UnitPrimitive, ...],
    "providers": tuple[ProviderRecord, ...],
    "limits": tuple[LimitRecord, ...],
    "sinks": tuple[SinkRecord, ...],
    "deny": tuple[DenyRecord, ...],
}
"""File stem → what it holds; its records are kept under that name."""

_CHECKS: dict[str, Callable[[Document, Any, int], Iterator[str]]] = {
    "limits": wrong_limit,
    "sinks": wrong_sink,
}
"""What is wrong with a record that stands on its own, beyond its shape."""

_FILES = (*(f"{stem}.yml" for stem in (*_LISTS, "models")),)
_FOLDERS = ("features", "prompts")
_VERSION_FILE = re.compile(
    r"[0-9]+\.[0-9]+\.[0-9]+(?:[-.]?(?:alpha|beta|rc|a|b)[-.]?[0-9]*)?(?:[-.]?dev[-.]?[0-9]*)?\.yml"
)


def load_catalogue(overlays: Sequence[Path] = ()) -> Catalogue:
    """Everything, merged and cross-checked. Raises BadCatalogue with all problems found."""
    catalogue, problems = read_catalogue(overlays)
    if problems:
        raise BadCatalogue(problems)
    return catalogue


def read_catalogue(overlays: Sequence[Path] = ()) -> tuple[Catalogue, list[str]]:
    """As `load_catalogue`, but hands out what could be read beside the problems, for `torana check`."""
    shipped = _read_shipped(fingerprint([SHIPPED]))
    reading = shipped.copy()
    for folder in overlays:
        reading.read_folder(folder, is_overlay=True)
    catalogue = Catalogue(
        **reading.records,
        features=reading.features,
        prompts=reading.prompts,
        templates=reading.templates,
        overrides=tuple(reading.overrides),
        overlaid=frozenset(key for key, place in reading.places.items() if shipped.places.get(key) != place),
        places=reading.places,
    )
    # Cross checks on half of the records would only report what is missing because of another problem.
    return catalogue, reading.problems or check_catalogue(catalogue)


@lru_cache(maxsize=1)
def _read_shipped(_fingerprint: object) -> "_Reading":
    """The half that is the same at every load, read once."""
    reading = _Reading()
    reading.read_folder(SHIPPED, is_overlay=False)
    return reading


def fingerprint(folders: Sequence[Path]) -> frozenset[tuple[str, int, int, int]]:
    """What tells that a file below was changed, added or taken away, links followed."""
    marks: set[tuple[str, int, int, int]] = set()
    for folder in folders:
        for path in _walk(folder):
            with suppress(OSError):
                stat = path.stat()
                marks.add((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return frozenset(marks)


def overlay_paths(setting: str) -> tuple[Path, ...]:
    """The directories that AIGW_CATALOG names, separated by colons."""
    return tuple(Path(part) for part in setting.split(":") if part)


class _Reading:
    """What has been read so far, the problems included."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {kind: {} for kind in (*_LISTS, *ModelsFile.__struct_fields__)}
        self.features: dict[str, FeatureRecord] = {}
        self.prompts: dict[str, dict[str, dict[str, PromptSource]]] = {}
        self.templates: dict[str, str] = {}
        self.overrides: list[str] = []
        self.problems: list[str] = []
        self.places: dict[str, str] = {}

    def copy(self) -> "_Reading":
        """One that goes on from here; this one stays as it is."""
        other = _Reading()
        other.records = {kind: dict(records) for kind, records in self.records.items()}
        other.features = dict(self.features)
        other.prompts = {
            name: {variant: dict(versions) for variant, versions in variants.items()}
            for name, variants in self.prompts.items()
        }
        other.templates = dict(self.templates)
        other.overrides = list(self.overrides)
        other.problems = list(self.problems)
        other.places = dict(self.places)
        return other

    def read_folder(self, folder: Path, *, is_overlay: bool) -> None:
        try:
            if not folder.is_dir():
                self.problems.append(f"{folder}:1: is no directory, expected a catalogue directory")
                return
            if is_overlay:
                self._refuse_strangers(folder)
            # A link into nowhere is a fault, not an absent file.
            files = [path for name in _FILES if (path := folder / name).exists() or path.is_symlink()]
        except OSError as error:
            self._refuse_folder(error)
            return
        for path in files:
            self._read_records(path)
        for path in _walk(folder / "features", self._refuse_folder):
            self._read_feature(path, path.relative_to(folder / "features").parts)
        for path in _walk(folder / "prompts", self._refuse_folder):
            self._read_prompt(path, path.relative_to(folder / "prompts").parts, is_overlay=is_overlay)

    def _refuse_folder(self, error: OSError) -> None:
        """What stands in it would be taken for deleted otherwise."""
        if not isinstance(error, FileNotFoundError):
            what = f"cannot be read ({type(error).__name__})"
            self.problems.append(f"{error.filename}:1: {what}, expected a readable directory")

    def _refuse_strangers(self, folder: Path) -> None:
        """A misspelt name would be ignored in silence otherwise. Other kinds of files (README) may stand there."""
        for path in sorted(folder.iterdir()):
            known = _FOLDERS if path.is_dir() else _FILES
            if path.name in known or path.name.startswith(".") or not (path.is_dir() or _is_ours(path)):
                continue
            hint = nearest(path.name.lower(), known, f"expected one of {', '.join(known)}")
            if path.suffix == ".jinja":
                hint = f"expected prompts/{path.name}, the root of all includes"
            self.problems.append(f"{path}:1: unknown name, {hint}")

    def _read_records(self, path: Path) -> None:
        try:
            document = Document(str(path), read_text(path))
            if path.stem in _LISTS:
                records = document.convert(_LISTS[path.stem])
                wrong = _CHECKS.get(path.stem)
                if wrong is not None:
                    self.problems += [
                        each for index, record in enumerate(records) for each in wrong(document, record, index)
                    ]
                self._merge(path.stem, records, document, ())
                return
            models = document.convert(ModelsFile)
            for kind in ModelsFile.__struct_fields__:
                self._merge(kind, getattr(models, kind), document, (kind,))
        except BadCatalogue as bad:
            self.problems += bad.problems

    def _merge(self, kind: str, records: Sequence[Any], document: Document, path: tuple[str, ...]) -> None:
        names: set[str] = set()
        for index, record in enumerate(records):
            if record.name in names:
                self.problems.append(
                    document.problem(f"`{record.name}` stands twice", "expected each name once", *path, index)
                )
            if not record.name.strip():
                self.problems.append(document.problem("`name` is empty", "expected a name", *path, index, "name"))
            names.add(record.name)
            key = f"{kind} {record.name}"
            place = f"{document.name}:{document.line(*path, index)}"
            if record.name in self.records[kind] and key in self.places:
                self.overrides.append(f"{key}: {place} replaces {self.places[key]}")
            self.records[kind][record.name] = record
            self.places[key] = place

    def _read_feature(self, path: Path, parts: tuple[str, ...]) -> None:
        if not _is_ours(path):
            return
        if len(parts) > 1 or path.suffix != ".yml":
            self.problems.append(f"{path}:1: unknown name, expected features/<name>.yml")
            return
        try:
            feature = read_feature(path)
        except BadCatalogue as bad:
            self.problems += bad.problems
            return
        self._note_override(f"features {feature.name}", path)
        self.features[feature.name] = feature

    def _read_prompt(self, path: Path, parts: tuple[str, ...], *, is_overlay: bool) -> None:
        name = "/".join(parts)
        try:
            if path.suffix == ".jinja":
                self._note_override(f"template {name}", path)
                self.templates[name] = read_text(path)
            elif not _is_ours(path):
                return
            elif len(parts) < 3 or not _VERSION_FILE.fullmatch(parts[-1]):
                hint = "expected prompts/<id>/<variant>/<version>.yml, with a version such as 1.0.0 or 1.1.0-rc.1"
                self.problems.append(f"{path}:1: unknown name, {hint}")
            else:
                source = PromptSource(path, read_text(path), is_overlay)
                self._note_override(f"prompt {name}", path)
                variants = self.prompts.setdefault("/".join(parts[:-2]), {})
                variants.setdefault(parts[-2], {})[path.name.removesuffix(".yml")] = source
                if is_overlay:
                    source.read()
        except BadCatalogue as bad:
            self.problems += bad.problems

    def _note_override(self, key: str, path: Path) -> None:
        if key in self.places:
            self.overrides.append(f"{key}: {path} replaces {self.places[key].rpartition(':')[0]}")
        self.places[key] = f"{path}:1"


def _is_ours(path: Path) -> bool:
    return path.suffix.lower() in (".yml", ".yaml", ".jinja")


def _walk(folder: Path, refuse: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Every file below, in order. Follows links, which is how ConfigMaps are mounted, but not in circles.

    refuse  told of each folder that cannot be read
    """
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        try:
            state = os.stat(here)
        except OSError:  # gone meanwhile
            continue
        real = (state.st_dev, state.st_ino)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and real not in seen)
        if real not in seen:
            yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))
        seen.add(real)
