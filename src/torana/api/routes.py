"""Every URL, its handler and its policy, as ONE list. Each endpoint group adds its rows here."""

from torana.api.chat import ChatEndpoints
from torana.api.code import CodeEndpoints
from torana.api.docs import DocsEndpoints
from torana.api.exchange import Route
from torana.api.models import ModelEndpoints
from torana.api.monitoring import MonitoringEndpoints
from torana.api.prompts import PromptEndpoints
from torana.api.proxy import ProxyEndpoints
from torana.api.tokens import TokenEndpoints


def all_routes(
    monitoring: MonitoringEndpoints,
    tokens: TokenEndpoints,
    code: CodeEndpoints,
    chat: ChatEndpoints,
    prompts: PromptEndpoints,
    proxy: ProxyEndpoints,
    models: ModelEndpoints,
    docs: DocsEndpoints,
) -> list[Route]:
    """In the order of contract section 0."""
    rows = [
        *monitoring.routes(),
        *models.routes(),
        *tokens.routes(),
        *code.routes(),
        *chat.routes(),
        *prompts.routes(),
        *proxy.routes(),
    ]
    return [*rows, *docs.routes(rows)]
