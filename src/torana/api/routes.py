"""Every URL, its handler and its policy, as ONE list. Each endpoint group adds its rows here."""

from torana.api.amazon_q import AmazonQEndpoints
from torana.api.chat import ChatEndpoints
from torana.api.chat_v1 import ChatV1Endpoints
from torana.api.code import CodeEndpoints
from torana.api.dialect_routes import DialectEndpoints
from torana.api.docs import DocsEndpoints
from torana.api.embeddings import EmbeddingEndpoints
from torana.api.exchange import Route
from torana.api.feature import FeatureEndpoints
from torana.api.models import ModelEndpoints
from torana.api.monitoring import MonitoringEndpoints
from torana.api.prompts import PromptEndpoints
from torana.api.proxy import ProxyEndpoints
from torana.api.search import SearchEndpoints
from torana.api.tokens import TokenEndpoints
from torana.api.x_ray import XRayEndpoints


def all_routes(
    monitoring: MonitoringEndpoints,
    tokens: TokenEndpoints,
    code: CodeEndpoints,
    chat: ChatEndpoints,
    chat_v1: ChatV1Endpoints,
    prompts: PromptEndpoints,
    proxy: ProxyEndpoints,
    dialects: DialectEndpoints,
    search: SearchEndpoints,
    embeddings: EmbeddingEndpoints,
    x_ray: XRayEndpoints,
    amazon_q: AmazonQEndpoints,
    models: ModelEndpoints,
    features: FeatureEndpoints,
    docs: DocsEndpoints,
) -> list[Route]:
    """In the order of contract section 0, then what the catalogue adds."""
    rows = [
        *monitoring.routes(),
        *models.routes(),
        *tokens.routes(),
        *code.routes(),
        *chat.routes(),
        *chat_v1.routes(),
        *prompts.routes(),
        *proxy.routes(),
        *dialects.routes(),
        *search.routes(),
        *embeddings.routes(),
        *x_ray.routes(),
        *amazon_q.routes(),
        *features.routes(),
    ]
    return [*rows, *docs.routes(rows)]
