"""What the OpenAPI document says of each route. Every route has a page here; a test keeps it so."""

from torana.api.openapi_schemas import ANYTHING, FLAG, FREE, INTEGER, Schema, a_list, a_text, an_object
from torana.catalog.records import FeatureInput, FeatureRecord

_MODEL = a_text(description="an alias, a name of the catalogue, or the provider's own name of the model")

_METADATA = an_object(
    ["provider"],
    provider=a_text(255),
    name=a_text(255, description="family of a self-hosted model"),
    endpoint=a_text(255, format="uri"),
    api_key=a_text(2000, format="password"),
    identifier=a_text(1000),
    feature_setting=a_text(255),
)
_FILE = an_object(
    ["file_name", "content_above_cursor", "content_below_cursor"],
    file_name=a_text(255),
    language_identifier=a_text(255),
    content_above_cursor=a_text(100_000),
    content_below_cursor=a_text(100_000),
)
_CODE_V2 = an_object(
    ["current_file"],
    prompt_version={"type": "integer", "enum": [1, 2, 3], "default": 1},
    project_path=a_text(255),
    project_id=INTEGER,
    current_file=_FILE,
    model_provider=a_text(
        enum=["anthropic", "vertex-ai", "litellm", "codestral", "fireworks_ai", "amazon_q", "gitlab"]
    ),
    model_name=a_text(50),
    model_endpoint=a_text(),
    model_api_key=a_text(format="password"),
    model_identifier=a_text(),
    stream=FLAG,
    choices_count=INTEGER,
    context=a_list(an_object(type=a_text(1024), name=a_text(1024), content=a_text(500_000)), high=100),
    prompt=ANYTHING,
    prompt_id=a_text(),
)
_COMPONENTS = an_object(
    ["prompt_components"],
    prompt_components=a_list(
        an_object(
            ["type", "payload"],
            type=a_text(enum=["code_editor_completion", "code_editor_generation", "code_context"]),
            payload=FREE,
            metadata=an_object(source=a_text(255), version=a_text(255)),
        ),
        1,
        100,
    ),
    model_metadata=_METADATA,
)
_CHAT = an_object(
    ["messages"],
    messages=a_list(
        an_object(["role"], role=a_text(enum=["system", "user", "assistant"]), content={"type": ["string", "null"]}), 1
    ),
    options=FREE,
    model_metadata=_METADATA,
    unavailable_resources=a_list(a_text()),
)
_PROMPT = an_object(
    ["inputs"],
    inputs=FREE,
    prompt_version=a_text(description="constraint, such as ^1.0.0"),
    stream=FLAG,
    model_metadata=_METADATA,
)

_CHAT_V1 = an_object(
    ["prompt_components"],
    prompt_components=a_list(
        an_object(
            ["type", "metadata", "payload"],
            type=a_text(100),
            metadata=an_object(["source", "version"], source=a_text(100), version=a_text(100)),
            payload=an_object(
                ["content"],
                content={"oneOf": [a_text(400_000), a_list(an_object(["role", "content"]), 1, 100)]},
                provider=a_text(enum=["anthropic", "litellm"]),
                model=a_text(255),
                params=an_object(
                    stop_sequences=a_list(a_text(225), 1, 10),
                    temperature={"type": "number", "minimum": 0, "maximum": 1, "default": 0.2},
                    max_tokens_to_sample={"type": "integer", "minimum": 1, "maximum": 8192},
                ),
                model_endpoint=a_text(255, format="uri"),
                model_api_key=a_text(2000, format="password"),
                model_identifier=a_text(1000),
            ),
        ),
        1,
        1,
    ),
    stream=FLAG,
)
_X_RAY = an_object(
    ["prompt_components"],
    prompt_components=a_list(
        an_object(
            ["type", "payload"],
            type=a_text(enum=["x_ray_package_file_prompt"]),
            payload=an_object(
                ["prompt"],
                prompt=a_text(400_000),
                provider=a_text(enum=["anthropic"]),
                model=a_text(enum=["claude-2.1"]),
            ),
            metadata=FREE,
        ),
        1,
        1,
    ),
)
_SEARCH = an_object(
    ["type", "metadata", "payload"],
    type=a_text(100),
    metadata=an_object(["source", "version"], source=a_text(100), version=a_text(100)),
    payload=an_object(
        ["query"],
        query=a_text(400_000),
        page_size={"type": "integer", "minimum": 1, "maximum": 20, "default": 4},
    ),
)
_EMBEDDINGS = an_object(
    ["model_metadata", "contents"],
    model_metadata=_METADATA,
    contents=a_list(a_text(), 1, 2048),
    dimensions={"type": "integer", "minimum": 1, "maximum": 4096},
    litellm_drop_params=ANYTHING,
)
_ROLE = an_object(["role_arn"], role_arn=a_text(2048))

_CODE_ANSWER = an_object(choices=a_list(an_object(text=a_text(), index=INTEGER, finish_reason=a_text())), model=FREE)

_SEARCH_ANSWER = an_object(response=an_object(results=a_list(FREE)), metadata=FREE)
_EMBEDDINGS_ANSWER = an_object(
    model=an_object(engine=a_text(), name=a_text(), identifier=a_text()),
    predictions=a_list(an_object(embedding=a_list({"type": "number"}), index=INTEGER)),
)

Page = tuple[str, str, Schema | None, Schema | None]
"""(group, summary, request body, what a 200 holds; None: it never answers 200, but 501)"""

PROXY_GROUP = "Pass-through"

_MINTED = an_object(token=a_text(), expires_at=INTEGER)

PAGES: dict[str, Page] = {
    "/monitoring/healthz": ("Monitoring", "Liveness", None, an_object()),
    "/monitoring/ready": ("Monitoring", "Readiness", None, an_object()),
    "/.well-known/jwks.json": ("Issuer", "Public keys that verify user tokens", None, FREE),
    "/.well-known/openid-configuration": ("Issuer", "Discovery document", None, FREE),
    "/v1/models/definitions": ("Models", "The model catalogue", None, FREE),
    "/v1/code/user_access_token": ("Access", "Mint a one-hour user token", None, _MINTED),
    "/auth/v1/code/user_access_token": ("Access", "Alias of minting", None, _MINTED),
    "/v2/code/completions": ("Code", "Complete code at the cursor", _CODE_V2, _CODE_ANSWER),
    "/v2/completions": ("Code", "Alias for direct connections", _CODE_V2, _CODE_ANSWER),
    "/v2/code/generations": ("Code", "Generate code from an instruction", _CODE_V2, _CODE_ANSWER),
    "/v3/code/completions": ("Code", "Completion or generation, component envelope", _COMPONENTS, _CODE_ANSWER),
    "/v4/code/suggestions": ("Code", "As v3; streams are server-sent events", _COMPONENTS, _CODE_ANSWER),
    "/v2/chat/agent": ("Chat", "One ReAct step, as JSON lines", _CHAT, FREE),
    "/v1/prompts/{tail}": ("Prompts", "Run a named prompt; a JSON string, or a text stream", _PROMPT, a_text()),
    "/v2/prompts/{tail}": (
        "Prompts",
        "Run a named prompt; an object with token usage, or JSON lines",
        _PROMPT,
        an_object(content=a_text(), usage=FREE),
    ),
    "/v1/proxy/anthropic/{tail}": (PROXY_GROUP, "Anthropic's own API behind the gate", FREE, ANYTHING),
    "/v1/proxy/openai/v1/models": (PROXY_GROUP, "The models that OpenAI lists", None, FREE),
    "/v1/proxy/openai/models": (PROXY_GROUP, "Alias of the list of models", None, FREE),
    "/v1/proxy/openai/{tail}": (PROXY_GROUP, "OpenAI's own API behind the gate", FREE, ANYTHING),
    "/v1/proxy/vertex-ai/{tail}": (PROXY_GROUP, "Vertex AI's own API behind the gate", FREE, ANYTHING),
    "/openai/v1/chat/completions": (
        "Dialects",
        "OpenAI's chat completions, with any model behind them",
        an_object(["model", "messages"], model=_MODEL, messages=a_list(FREE, 1), stream=FLAG),
        FREE,
    ),
    "/openai/v1/responses": (
        "Dialects",
        "OpenAI's responses, with any model behind them; nothing is stored",
        an_object(["model", "input"], model=_MODEL, input=ANYTHING, stream=FLAG),
        FREE,
    ),
    "/anthropic/v1/messages": (
        "Dialects",
        "Anthropic's messages, with any model behind them",
        an_object(
            ["model", "max_tokens", "messages"],
            model=_MODEL,
            max_tokens=INTEGER,
            messages=a_list(FREE, 1),
            stream=FLAG,
        ),
        FREE,
    ),
    "/openai/v1/embeddings": (
        "Dialects",
        "OpenAI's embeddings",
        an_object(["model", "input"], model=_MODEL, input=ANYTHING),
        FREE,
    ),
    "/anthropic/v1/messages/count_tokens": (
        "Dialects",
        "How long a prompt is, as its provider counts or as we estimate",
        an_object(["model", "messages"], model=_MODEL, messages=a_list(FREE, 1)),
        an_object(input_tokens=INTEGER),
    ),
    "/openai/v1/models": ("Dialects", "The configured models, as OpenAI lists its own", None, FREE),
    "/openai/v1/models/{tail}": ("Dialects", "One model, by any of its names", None, FREE),
    "/anthropic/v1/models": ("Dialects", "The configured models, as Anthropic lists its own", None, FREE),
    "/anthropic/v1/models/{tail}": ("Dialects", "One model, by any of its names", None, FREE),
    "/v1/chat/{tail}": (
        "Chat",
        "A client's own prompt; deprecated",
        _CHAT_V1,
        an_object(response=a_text(), metadata=FREE),
    ),
    "/v1/search/gitlab-docs": ("Search", "Search the documentation", _SEARCH, _SEARCH_ANSWER),
    "/v1/embeddings/code_embeddings": ("Embeddings", "Vectors for code", _EMBEDDINGS, _EMBEDDINGS_ANSWER),
    "/v1/embeddings/code_embeddings/index": ("Embeddings", "As above, to index", _EMBEDDINGS, _EMBEDDINGS_ANSWER),
    "/v1/embeddings/code_embeddings/search": ("Embeddings", "As above, to search", _EMBEDDINGS, _EMBEDDINGS_ANSWER),
    "/v1/x-ray/libraries": ("Code", "Summarize dependencies; deprecated", _X_RAY, an_object(response=a_text())),
    "/v1/amazon_q/oauth/application": (
        "Amazon Q",
        "Checked, then 501",
        an_object(
            ["client_id", "client_secret", "instance_url", "redirect_url", "role_arn"],
            client_id=a_text(255),
            client_secret=a_text(1000, format="password"),
            instance_url=a_text(500),
            redirect_url=a_text(500),
            role_arn=a_text(2048),
        ),
        None,
    ),
    "/v1/amazon_q/oauth/application/delete": ("Amazon Q", "Checked, then 501", _ROLE, None),
    "/v1/amazon_q/oauth/application/verify": (
        "Amazon Q",
        "Checked, then 501",
        an_object(["role_arn", "code"], role_arn=a_text(2048), code=a_text(255)),
        None,
    ),
    "/v1/amazon_q/events": (
        "Amazon Q",
        "Checked, then 501",
        an_object(
            ["role_arn", "code", "payload"],
            role_arn=a_text(2048),
            code=a_text(255),
            event_id=a_text(255, default="Quick Action"),
            payload={
                **an_object(["source"], source=a_text(enum=["merge_request", "issue", "web_hook"])),
                "additionalProperties": True,
            },
        ),
        None,
    ),
}


def feature_page(feature: FeatureRecord) -> Page:
    """The page of an endpoint that the catalogue declares."""
    required = [name for name, each in feature.inputs.items() if each.is_required]
    payload = an_object(required, **{name: _input(each) for name, each in feature.inputs.items()}, stream=FLAG)
    component = an_object(["type", "payload"], type=a_text(enum=list(feature.components)), payload=payload)
    body = an_object(
        ["prompt_components"],
        prompt_components=a_list({"anyOf": [component, FREE]}, 1, 100),
        stream=FLAG,
        model_metadata=_METADATA,
    )
    answer = an_object(["choices", "metadata"], **_CODE_ANSWER["properties"], metadata=FREE)
    return "Features", feature.description or feature.name, body, answer


def _input(each: FeatureInput) -> Schema:
    more: Schema = {"description": each.description} if each.description else {}
    if each.default is not None:
        more["default"] = each.default
    if each.type == "list":
        return {**a_list(a_text(each.max_chars), high=each.max_items), **more}
    return a_text(each.max_chars, **more) if each.type == "string" else {"type": each.type, **more}
