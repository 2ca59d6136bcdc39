"""POST /v1/search/gitlab-docs: the product's documentation, from an index of our own (contract 12.1)."""

import asyncio
import logging
import sqlite3
from dataclasses import dataclass
from typing import Any

from torana.access.permissions import permit
from torana.api import reading
from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.caller import Permit
from torana.clock import Clock
from torana.errors import Invalid, Refusal
from torana.search.build import NotAnIndex
from torana.search.index import DocsIndex, Hit
from torana.search.release import Release, find_release
from torana.settings import Settings

logger = logging.getLogger("torana.api.search")

MAX_QUERY_CHARS = 400_000
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 4, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    query: str
    page_size: int
    release: Release | None
    """The instance's own; None where its version cannot be read."""


class SearchEndpoints:
    def __init__(self, index: DocsIndex, settings: Settings, clock: Clock) -> None:
        self.index = index
        self.is_self_hosted = settings.providers.custom_models
        self.fallback = find_release(settings.search.fallback_release)
        self.clock = clock
        self._was_ready = False

    def routes(self) -> list[Route]:
        return [
            Route(
                path="/v1/search/gitlab-docs",
                read=self.read,
                policy=self.policy,
                handle=self.answer,
                asks_no_model=True,
            )
        ]

    def read(self, exchange: Exchange) -> Question:
        body = reading.read_object(exchange.body)
        reading.text(body, "type", limit=100, required=True)
        metadata = reading.mapping(body, "metadata", required=True)
        reading.text(metadata, "source", ("metadata",), limit=100, required=True)
        version = reading.text(metadata, "version", ("metadata",), limit=100, required=True)
        payload = reading.mapping(body, "payload", required=True)
        query = reading.text(payload, "query", ("payload",), limit=MAX_QUERY_CHARS, required=True)
        page_size = reading.integer(payload, "page_size", ("payload",), default=DEFAULT_PAGE_SIZE)
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise Invalid(("payload", "page_size"), f"Input should be from 1 to {MAX_PAGE_SIZE}", "value_error")
        return Question(query=query, page_size=page_size, release=find_release(version))

    def policy(self, exchange: Exchange, question: Question) -> Permit:
        return permit(exchange.caller, "documentation_search", denied="Unauthorized to search documentations")

    async def answer(self, exchange: Exchange, permit: Permit, question: Question) -> Reply:
        hits = await self._search(question)
        if hits is None:
            if not self.is_self_hosted:
                raise Refusal(400, "docs_release_missing", "Data store not found.", missing=str(question.release or ""))
            hits = []
        return json_reply(
            {
                "response": {"results": [_result(hit) for hit in hits]},
                "metadata": {"provider": "sqlite", "timestamp": int(self.clock.now())},
            }
        )

    async def _search(self, question: Question) -> list[Hit] | None:
        # A self-hosted gateway serves one instance, whose documentation is the newest that it was given.
        wanted = None if self.is_self_hosted else [each for each in (question.release, self.fallback) if each]
        try:
            return await asyncio.to_thread(self.index.search, question.query, question.page_size, wanted)
        except (sqlite3.Error, NotAnIndex, OSError) as error:
            logger.error("the documentation index cannot be read", extra={"reason": str(error)})
            raise Refusal(500, "docs_search_failed", "Internal Server Error") from error

    def check(self) -> tuple[bool, str]:
        """For readiness: an index that is configured must be readable. Once that was so, it is not looked at again."""
        if self.index.path is None:
            return True, "AIGW_DOCS_SEARCH__INDEX is not set"
        if self._was_ready:
            return True, "the index was readable"
        try:
            releases = self.index.releases()
        except (sqlite3.Error, NotAnIndex, OSError) as error:
            return False, f"AIGW_DOCS_SEARCH__INDEX: {error}"
        self._was_ready = bool(releases)
        if releases:
            return True, ", ".join(map(str, releases))
        return self.is_self_hosted, "AIGW_DOCS_SEARCH__INDEX names no file that holds anything"


def _result(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.id,
        "content": hit.content,
        "metadata": {
            "title": hit.title,
            "heading": hit.heading,
            "source": hit.source,
            "source_url": hit.source_url,
            "md5sum": hit.md5sum,
        },
    }
