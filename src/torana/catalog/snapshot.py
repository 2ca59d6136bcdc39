"""What loading gives: the whole catalogue as one immutable snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torana.catalog.document import Document
from torana.catalog.model_records import (
    AliasRecord,
    ClientNameRecord,
    FamilyRecord,
    FeatureSettingRecord,
    ModelRecord,
    ProviderRecord,
    ProxyModelsRecord,
    ResidencyRecord,
)
from torana.catalog.records import DenyRecord, FeatureRecord, LimitRecord, PromptFile, SinkRecord, UnitPrimitive
from torana.errors import BadCatalogue


@dataclass(frozen=True, slots=True)
class PromptSource:
    """One prompt file, as it stood when the catalogue was loaded. Shipped ones are parsed when first used."""

    path: Path
    text: str
    is_overlay: bool = False

    def document(self) -> Document:
        return Document(str(self.path), self.text)

    def read(self) -> PromptFile:
        """Raises BadCatalogue, with file and line."""
        return self.document().convert(PromptFile)


PromptSources = Mapping[str, Mapping[str, Mapping[str, PromptSource]]]
"""Prompt id → variant → version → file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Records by name, the shipped ones and what operators laid over them."""

    unit_primitives: Mapping[str, UnitPrimitive]
    providers: Mapping[str, ProviderRecord]
    models: Mapping[str, ModelRecord]
    aliases: Mapping[str, AliasRecord]
    client_names: Mapping[str, ClientNameRecord]
    feature_settings: Mapping[str, FeatureSettingRecord]
    proxy_models: Mapping[str, ProxyModelsRecord]
    families: Mapping[str, FamilyRecord]
    limits: Mapping[str, LimitRecord]
    sinks: Mapping[str, SinkRecord]
    residency: Mapping[str, ResidencyRecord]
    deny: Mapping[str, DenyRecord]
    features: Mapping[str, FeatureRecord]
    prompts: PromptSources
    templates: Mapping[str, str]
    """Text of every `*.jinja` under `prompts/`, by its path from there."""
    overrides: tuple[str, ...]
    """Lines `what: this file replaces that file`."""
    places: Mapping[str, str]
    """`file:line` of each record, by `<kind> <name>`: `models claude_haiku_4_5`."""
    overlaid: frozenset[str] = frozenset()
    """Those of `places` that operators laid over the shipped catalogue, which its own tests keep sound."""

    def names_of_models(self) -> dict[tuple[str, str], str]:
        """Provider and its own name of a model → the first of our models that is asked there by it."""
        found: dict[tuple[str, str], str] = {}
        for record in self.models.values():
            for item in record.deployments:
                found.setdefault((item.provider, item.model), record.name)
        return found


def read_text(path: Path) -> str:
    """Raises BadCatalogue when the file cannot be read or is no UTF-8."""
    try:
        if path.exists() and not path.is_file():  # from a pipe nothing need ever come
            raise BadCatalogue([f"{path}:1: is no file, expected a readable file"])
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadCatalogue([f"{path}:1: cannot be read ({type(error).__name__}), expected a readable file"]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadCatalogue([f"{path}:{line}: is no UTF-8, expected text in UTF-8"]) from None
