"""Whose account pays in a cloud, where, and with which credentials."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torana.errors import BadSetting
from torana.setting_values import Secret, setting

_KEY = "AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY"

_aws_keys = re.compile(r"^\s*(?:aws_access_key_id|credential_process|role_arn|sso_\w+)\s*=", re.MULTILINE)
_EC2_MARKS = (
    ("/sys/devices/virtual/dmi/id/sys_vendor", re.compile("^Amazon EC2")),
    ("/sys/hypervisor/uuid", re.compile("^ec2")),
)
"""Source: Amazon EC2 user guide, "Identify EC2 instances"."""

_project = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")
_location = re.compile(r"[a-z][a-z0-9-]{0,49}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleSettings:
    """Google Cloud. Vertex AI is configured where a project is known: with no key at all, the machine's own identity
    is asked for credentials (workload identity, metadata server, gcloud)."""

    project: str = setting(
        "",
        ("AIGW_GOOGLE_CLOUD_PLATFORM__PROJECT", "VERTEXAI_PROJECT", "AIGW_VERTEX_TEXT_MODEL__PROJECT"),
        "Google Cloud project of Vertex AI; empty: that of the credentials",
    )
    location: str = setting(
        "",
        (
            *("AIGW_GOOGLE_CLOUD_PLATFORM__LOCATION", "VERTEXAI_LOCATION", "AIGW_VERTEX_TEXT_MODEL__LOCATION"),
            "RUNWAY_REGION",
        ),
        "region of Vertex AI, or `global`; empty: `global`, and us-central1 for the pass-through",
    )
    service_account_key: Secret = setting(Secret(), _KEY, "text of a service account's JSON key")
    credentials_file: str = setting(
        "", "GOOGLE_APPLICATION_CREDENTIALS", "file with Google Cloud credentials of any kind"
    )

    @property
    def model_location(self) -> str:
        """Of deployments that name no region. Where nobody cares, the one that has every model."""
        return self.location or "global"

    @property
    def proxy_location(self) -> str:
        """Of the pass-through (contract 16)."""
        return self.location or "us-central1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSources:
    """Where AWS's own libraries look for credentials, as far as that shows without asking anybody."""

    profile: str = setting("", ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"), "profile of AWS's own files to use")
    credentials_file: str = setting("~/.aws/credentials", "AWS_SHARED_CREDENTIALS_FILE", "AWS's own file of keys")
    config_file: str = setting("~/.aws/config", "AWS_CONFIG_FILE", "AWS's own file of profiles and roles")
    role_token_file: str = setting("", "AWS_WEB_IDENTITY_TOKEN_FILE", "token of a role, as EKS sets it")
    container: str = setting(
        "",
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        "where a container is given keys, as ECS and EKS set it",
    )
    has_no_machine_role: bool = setting(
        False, "AWS_EC2_METADATA_DISABLED", "a machine of EC2 is not taken for one with a role"
    )

    @property
    def are_there(self) -> bool:
        """Files are looked at; a machine's own role is believed in where the machine is one of EC2's."""
        if self.profile or self.role_token_file or self.container:
            return True
        files = (self.credentials_file, self.config_file)
        return any(_holds(file, _aws_keys) for file in files) or (not self.has_no_machine_role and _is_in_ec2())


def _is_in_ec2() -> bool:
    return any(_holds(file, beginning) for file, beginning in _EC2_MARKS)


def _holds(file: str, what: re.Pattern[str]) -> bool:
    try:
        return what.search(Path(file).expanduser().read_text(encoding="utf-8", errors="replace")) is not None
    except (OSError, RuntimeError):  # no such file, or no home to look in
        return False


def check_google(settings: GoogleSettings, given: Collection[str]) -> GoogleSettings:
    """The same settings, the project found in the credentials where nothing else names it. Raises BadSetting.

    given   names that the operator has set, for each setting goes by several
    """
    held: dict[str, Any] = {}
    name = _KEY
    if settings.service_account_key:
        held = _read_credentials(settings.service_account_key.reveal())
        if not held.get("client_email") or not held.get("private_key"):
            raise BadSetting(_KEY, "is no key of a service account", "expected the text of its JSON key file")
    elif settings.credentials_file:
        name = "GOOGLE_APPLICATION_CREDENTIALS"
        try:
            held = _read_credentials(Path(settings.credentials_file).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError, RuntimeError) as error:  # the last: no home to look in
            raise BadSetting(name, f"cannot be read ({type(error).__name__})", "expected a JSON file") from None
    found = held.get("project_id") or held.get("quota_project_id") or ""
    project = settings.project or (found if isinstance(found, str) else "")
    if project and not _project.fullmatch(project):
        name = _given_as("project", given) if settings.project else name
        raise BadSetting(name, f"{project!r} is no project", "expected its id")
    if settings.location and not _location.fullmatch(settings.location):
        raise BadSetting(
            _given_as("location", given),
            f"{settings.location!r} is no location",
            "expected a region such as us-central1, or global",
        )
    return replace(settings, project=project)


def _given_as(field: str, given: Collection[str]) -> str:
    names: tuple[str, ...] = GoogleSettings.__dataclass_fields__[field].metadata["env"]
    return next((name for name in names if name in given), names[0])


def _read_credentials(text: str) -> dict[str, Any]:
    """The JSON object; empty for anything else."""
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
