"""Tokenizers that models and families name: files of the operator's own, which have to be sound."""

from pathlib import Path

from torana.catalog.findings import Findings
from torana.catalog.snapshot import Catalogue
from torana.vocabulary import BadVocabulary, read_vocabulary


def tokenizer_paths(catalogue: Catalogue) -> dict[str, Path]:
    """The file of each record that names one, by the record's key: `models qwen3_8b`."""
    return {
        f"{kind} {record.name}": Path(catalogue.places[f"{kind} {record.name}"].rpartition(":")[0]).parent
        / record.tokenizer
        for kind, records in (("models", catalogue.models), ("families", catalogue.families))
        for record in records.values()
        if record.tokenizer
    }


def check_tokenizers(found: Findings, catalogue: Catalogue) -> None:
    for key, path in tokenizer_paths(catalogue).items():
        try:
            read_vocabulary(path)
        except BadVocabulary as bad:
            found.add(key, bad.wrong, bad.expected)
