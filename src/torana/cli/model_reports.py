"""What a test of a model found, kept until it is promoted: one JSON file a model in the state directory."""

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from torana import __version__
from torana.catalog.model_records import ModelRecord
from torana.cli.model_probes import PROBES, Finding

FOLDER = "model-tests"


def deployment_report(name: str, declared: frozenset[str], findings: list[Finding]) -> dict[str, Any]:
    """One deployment: what was found, and how that differs from what is declared."""
    works = {each.ability for each in findings if each.works}
    return {
        "deployment": name,
        "findings": [asdict(each) for each in findings],
        "broken": [name for name in PROBES if name in declared and name not in works],
        "undeclared": [name for name in PROBES if name in works and name not in declared],
        "unasked": sorted(declared - PROBES.keys()),
    }


def model_report(name: str, record: ModelRecord | None, declared: frozenset[str], deployments: list[Any]) -> Any:
    """The whole: it passes where every declared ability works on every deployment, and at least one does anywhere."""
    has_answered = any(each["works"] for row in deployments for each in row["findings"])
    return {
        "model": name,
        "tested_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "torana": __version__,
        "record": fingerprint(record) if record is not None else "",
        "declared": sorted(declared),
        "deployments": deployments,
        "passed": has_answered and not any(each["broken"] for each in deployments),
    }


def fingerprint(record: ModelRecord) -> str:
    """What a test is about: where the model is, and what it is said to be able to do. Its stage is not."""
    told = [sorted(record.abilities), record.families, record.deployments]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


def keep(state: Path, report: Any) -> Path | None:
    """Where the report lies now; None where the state directory takes no files."""
    path = report_path(state, report["model"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(report), "utf-8")
    except OSError:
        return None
    return path


def report_path(state: Path, model: str) -> Path:
    return state / FOLDER / f"{model.replace('/', '_')}.json"


def as_text(report: Any) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"
