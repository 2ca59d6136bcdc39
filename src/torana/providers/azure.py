"""Azure OpenAI: chat completions and text completions behind one URL a deployment, or behind /openai/v1, and there
responses too.

Source: Azure OpenAI REST reference, data plane, inference; "Azure OpenAI in Microsoft Foundry Models v1 API";
"Use Microsoft Entra ID for authentication".
"""

from collections.abc import Mapping
from urllib.parse import parse_qs, quote, urlsplit

from torana.clock import Clock
from torana.dialects.dialect import Dialect
from torana.dialects.embedding_dialect import EmbeddingDialect
from torana.dialects.embeddings import OPENAI_EMBEDDINGS
from torana.dialects.openai_models import traits_of
from torana.errors import NoCredentials
from torana.providers.openai import dialect_of
from torana.providers.provider import PLACEHOLDER_KEY, Deployment, add_own
from torana.providers.refreshing import Refreshing
from torana.settings import ProviderSettings
from torana.transport import WireRequest

DEFAULT_VERSION = "2024-10-21"
"""Of the deployments' own URLs where a client gives one and nobody names a version: the last one before v1."""

NO_LIBRARY = "Entra ID needs the library azure-identity: run `make extras`, or set AZURE_API_KEY"

_SCOPES = {
    ".azure.us": "https://cognitiveservices.azure.us/.default",
    ".azure.cn": "https://cognitiveservices.azure.cn/.default",
}
_SCOPE = "https://cognitiveservices.azure.com/.default"


class AzureOpenAI:
    name = "azure"

    def __init__(self, settings: ProviderSettings, clock: Clock) -> None:
        self._version = settings.azure_api_version
        self._clock = clock
        self._tokens: dict[str, Refreshing[str]] = {}
        """By scope; each cloud has its own."""

    def dialect_for(self, deployment: Deployment) -> Dialect:
        return dialect_of(deployment)

    def embeddings_for(self, deployment: Deployment) -> EmbeddingDialect | None:
        return OPENAI_EMBEDDINGS

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        url = deployment_url(deployment.base_url, deployment.model, path.removeprefix("/v1"), self._version)
        return WireRequest(
            url=url,
            headers=add_own({**headers, **await self._greet(deployment)}, deployment),
            body=body,
            is_client_given=deployment.is_client_given,
        )

    async def _greet(self, deployment: Deployment) -> dict[str, str]:
        if deployment.secret or deployment.is_client_given:
            # Whoever names a host of their own gets no token of ours.
            return {"api-key": deployment.secret.reveal() or PLACEHOLDER_KEY}
        host = urlsplit(deployment.base_url).hostname or ""
        scope = next((scope for end, scope in _SCOPES.items() if host.endswith(end)), _SCOPE)
        if scope not in self._tokens:
            self._tokens[scope] = Refreshing("Entra ID token", lambda: fetch_token(scope), self._clock)
        return {"Authorization": f"Bearer {await self._tokens[scope].current()}"}


def deployment_url(base_url: str, model: str, asked: str, version: str) -> str:
    """Where a deployment is asked.

    base_url  the resource's address, or one that leads further: `…/openai`, `…/openai/v1`,
              `…/openai/deployments/<name>`, or all of it as Azure's portal shows it
    asked     `/chat/completions`, `/completions`, `/responses`, `/embeddings`
    version   empty: the v1 API, which needs none and finds the deployment by the model's name in the body
    """
    parts = urlsplit(base_url)
    told = parse_qs(parts.query).get("api-version", [""])[0]
    version = told or version
    root = f"{parts.scheme}://{parts.netloc}"
    path = parts.path.rstrip("/").removesuffix(asked).rstrip("/")
    if "/deployments/" in path:
        return f"{root}{path}{asked}?api-version={quote(version or DEFAULT_VERSION, safe='')}"
    if path.endswith("/v1"):
        return f"{root}{path}{asked}" + (f"?api-version={quote(told, safe='')}" if told else "")
    path = path.removesuffix("/openai") + "/openai"
    if version in ("", "v1"):
        return f"{root}{path}/v1{asked}"
    if version in ("preview", "latest"):
        return f"{root}{path}/v1{asked}?api-version={version}"
    return f"{root}{path}/deployments/{quote(model, safe='')}{asked}?api-version={quote(version, safe='')}"


def has_responses(base_url: str, model: str, version: str) -> bool:
    """True where a deployment can be asked in the responses format: in the v1 API, and where its name tells a model of
    OpenAI's that thinks, for others need not know it."""
    path = urlsplit(deployment_url(base_url, model, "/responses", version)).path
    return path.endswith("/v1/responses") and traits_of(model).reasons


def fetch_token(scope: str) -> tuple[str, float]:
    """A token of whoever this process is in Entra ID, and when it ends; blocks, raises NoCredentials."""
    try:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise NoCredentials(NO_LIBRARY) from None
    try:
        with DefaultAzureCredential() as credential:
            token = credential.get_token(scope)
    except (AzureError, OSError, ValueError) as error:
        # The kind says what is wrong; the text names files, tenants and what else was tried.
        raise NoCredentials(
            f"no Entra ID token for Azure OpenAI: {type(error).__name__}; or set AZURE_API_KEY"
        ) from error
    return token.token, float(token.expires_on)
