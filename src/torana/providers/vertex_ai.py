"""Vertex AI: Gemini in the generate content dialect, Claude in the messages dialect, in the operator's own project.

Quirks: the model, the project, the region and whether the answer streams stand in the path; Claude's body names a
version instead of the model; v1 of Gemini has no ids of calls (dialects/generate_content.py); some regions share hosts.
Source: Vertex AI REST reference, "publishers.models"; "Generative AI locations"; Claude docs, "Claude on Vertex AI".
"""

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from torana.cloud_settings import GoogleSettings
from torana.dialects.dialect import Dialect
from torana.dialects.embedding_dialect import EmbeddingDialect
from torana.dialects.generate_content import VERTEX_CONTENT
from torana.dialects.members import Members
from torana.dialects.messages import MESSAGES
from torana.dialects.vertex_predictions import VERTEX_EMBEDDINGS
from torana.errors import NoCredentials, ProviderError
from torana.providers.google_tokens import GoogleTokens
from torana.providers.provider import Deployment, add_own
from torana.transport import WireRequest

CLAUDE_VERSION = "vertex-2023-10-16"

_JOINT_REGIONS = ("us", "eu")
"""Several regions of one jurisdiction behind one host."""

_relayed_path = re.compile(r"/v1/projects/[^/]+/locations/[^/]+(?P<rest>/publishers/.+)")
"""Of the pass-through: the client's project and location give way to ours."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class VertexAI:
    name = "vertex_ai"

    def __init__(self, settings: GoogleSettings, tokens: GoogleTokens) -> None:
        self.settings = settings
        self.tokens = tokens

    def dialect_for(self, deployment: Deployment) -> Dialect:
        return MESSAGES if _is_claude(deployment) else VERTEX_CONTENT

    def embeddings_for(self, deployment: Deployment) -> EmbeddingDialect | None:
        return None if _is_claude(deployment) else VERTEX_EMBEDDINGS

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        if not self.settings.project:
            raise NoCredentials("no Google Cloud project: set AIGW_GOOGLE_CLOUD_PLATFORM__PROJECT", deployment.name)
        token = await self.tokens.bearer()
        sent = add_own({**headers, "Authorization": f"Bearer {token}"}, deployment)
        if relayed := _relayed_path.fullmatch(path):
            region = self.settings.proxy_location
            base = deployment.base_url.rstrip("/") or host_of(region)
            return WireRequest(url=f"{base}{self._place(region)}{relayed['rest']}", headers=sent, body=body)
        region = deployment.region or self.settings.model_location
        publisher = "anthropic" if _is_claude(deployment) else "google"
        if path == VERTEX_EMBEDDINGS.path:
            action = "predict"
        elif _is_claude(deployment):
            body = write_claude_body(body)
            action = "streamRawPredict" if stream else "rawPredict"
        else:
            action = "streamGenerateContent?alt=sse" if stream else "generateContent"
        place = self._place(region, deployment.account)
        model = quote(deployment.model, safe="@")
        base = deployment.base_url.rstrip("/") or host_of(region)
        return WireRequest(url=f"{base}{place}/publishers/{publisher}/models/{model}:{action}", headers=sent, body=body)

    def _place(self, region: str, project: str = "") -> str:
        return f"/v1/projects/{project or self.settings.project}/locations/{region}"


def _is_claude(deployment: Deployment) -> bool:
    return deployment.model.startswith("claude-")


def host_of(region: str) -> str:
    if region == "global":
        return "https://aiplatform.googleapis.com"
    if region in _JOINT_REGIONS:
        return f"https://aiplatform.{region}.rep.googleapis.com"
    return f"https://{region}-aiplatform.googleapis.com"


def write_claude_body(body: bytes) -> bytes:
    """The same request with the version that Vertex asks for, and without the model, which it refuses."""
    try:
        members: Members = dict(_members.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ProviderError("a request that is no JSON object") from None
    members.pop("model", None)
    return msgspec.json.encode({"anthropic_version": CLAUDE_VERSION, **members})
