"""POST /v1/embeddings/code_embeddings, …/index and …/search: vectors for code search (contract 12.2).

The three do the same; clients tell by the path what the vectors are for, and models that make different ones are told.
"""

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace as replace_fields

from torana.access.permissions import permit
from torana.api import reading
from torana.api.code import code_failed
from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.api.metadata import read_model_metadata
from torana.caller import Permit
from torana.chat import ModelWish
from torana.dialects.embedding_dialect import MAX_DIMENSIONS, EmbeddingsRequest, Purpose
from torana.dialects.embeddings import MAX_INPUTS
from torana.errors import Invalid, PromptTooLong, ProviderError, Refusal
from torana.gateway import Gateway
from torana.routing.models import Model
from torana.settings import ProviderSettings, Settings
from torana.too_long import read_counted

PATH = "/v1/embeddings/code_embeddings"

_PURPOSES: dict[str, Purpose] = {f"{PATH}/index": "index", f"{PATH}/search": "search"}

_METADATA: reading.Loc = ("model_metadata",)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOrder:
    """A request, read and looked up."""

    request: EmbeddingsRequest
    model: Model
    identifier: str
    """As the client wrote it; may be empty."""
    is_own: bool
    """The client names a server of its own."""


class EmbeddingEndpoints:
    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self.gateway = gateway
        self.settings = settings.providers

    def routes(self) -> list[Route]:
        return [
            Route(
                path=path,
                read=self.read,
                policy=self.policy,
                handle=self.answer,
                is_background=path.endswith("/index"),
            )
            for path in (PATH, f"{PATH}/index", f"{PATH}/search")
        ]

    def read(self, exchange: Exchange) -> EmbeddingOrder:
        body = reading.read_object(exchange.body)
        metadata = reading.mapping(body, "model_metadata", required=True)
        wish = _read_wish(metadata, self.settings)
        rows = reading.items(body, "contents", at_least=1, at_most=MAX_INPUTS, required=True)
        for number, row in enumerate(rows):
            if not isinstance(row, str):
                raise Invalid(("contents", number), "Input should be a valid string", "string_type")
        dimensions = _read_dimensions(body)
        return EmbeddingOrder(
            request=EmbeddingsRequest(
                inputs=tuple(rows), dimensions=dimensions, purpose=_PURPOSES.get(exchange.path, "")
            ),
            model=self.gateway.models.find_embedder(wish),
            identifier=wish.identifier,
            is_own=wish.is_own,
        )

    def policy(self, exchange: Exchange, order: EmbeddingOrder) -> Permit:
        name = "generate_embeddings_codebase"
        return permit(exchange.caller, name, denied=f"Unauthorized to access {name}")

    async def answer(self, exchange: Exchange, permit: Permit, order: EmbeddingOrder) -> Reply:
        try:
            embedded = await self.gateway.walk.embed(permit, order.model, order.request, exchange.facts)
        except ProviderError as error:
            raise embedding_failed(error) from error
        is_demo = embedded.provider == "demo"
        return json_reply(
            {
                "model": {
                    "engine": "litellm" if order.is_own and not is_demo else embedded.provider,
                    "name": embedded.upstream_model,
                    "identifier": order.identifier or order.model.name,
                },
                "predictions": [{"embedding": row, "index": index} for index, row in enumerate(embedded.rows)],
            },
            embedded.headers,
        )


def embedding_failed(error: ProviderError) -> Refusal:
    """400 and 401 of the provider are the client's to see: it may name model, server and key itself."""
    if error.upstream_code not in (400, 401):
        return code_failed(error)
    text = error.phrase
    if isinstance(error, PromptTooLong) and (counted := read_counted(str(error))):
        # GitLab sends the halves of its texts when it reads Vertex AI's words, and gives up on all of them otherwise.
        text += f", the input token count is {counted.input} but the model supports up to {counted.limit}"
    return Refusal(error.upstream_code, error.code, text, layer="provider")


def _read_wish(metadata: dict[str, Any], settings: ProviderSettings) -> ModelWish:
    provider = reading.choice(metadata, "provider", ("gitlab", "litellm"), _METADATA, required=True)
    wish = read_model_metadata(metadata, settings) or ModelWish()
    if provider == "litellm" or wish.is_own:
        reading.choice(metadata, "name", ("embedding",), _METADATA, required=True)
        reading.text(metadata, "endpoint", _METADATA, at_least=1, required=True)
        return wish
    return replace_fields(wish, feature_setting="embeddings_code")


def _read_dimensions(body: dict[str, Any]) -> int | None:
    """None where the model is to choose; also where the client says that its server may not know the parameter."""
    if body.get("dimensions") is None:
        return None
    dimensions = reading.integer(body, "dimensions")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise Invalid(("dimensions",), f"Input should be from 1 to {MAX_DIMENSIONS}", "value_error")
    drop = body.get("litellm_drop_params")
    is_dropped = "dimensions" in drop if isinstance(drop, list) else drop is True
    return None if is_dropped else dimensions
