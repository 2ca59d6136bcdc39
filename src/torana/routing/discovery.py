"""Which model a server of the operator's own offers: the first id of its GET /v1/models (interface 5)."""

import asyncio
import json
import logging
from contextlib import suppress

from torana.providers.provider import PLACEHOLDER_KEY, join_url
from torana.settings import ProviderSettings
from torana.transport import Fetcher, FetchFailed

logger = logging.getLogger("torana.routing")

REFRESH_S = 300.0
RETRY_S = 5.0
TIMEOUT_S = 5.0


class FirstModel:
    """Asked in the background; a request that comes before the first answer waits for it."""

    def __init__(self, settings: ProviderSettings, fetcher: Fetcher) -> None:
        self.settings = settings
        self.fetcher = fetcher
        self.known = ""
        """The server's first model id; empty until it has told one."""
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        """Set once a question was answered or failed."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_asking())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def current(self) -> str:
        """The server's first model id; empty where it has told none yet."""
        if self._task is None:
            # Nobody needed it at start; this request does.
            self.start()
        if not self.known:
            await self._asked.wait()
        return self.known

    async def _keep_asking(self) -> None:
        while True:
            try:
                self.known = await self._ask()
            except FetchFailed as error:
                logger.warning("GET /v1/models of OPENAI_BASE_URL failed", extra={"reason": str(error)})
            self._asked.set()
            await asyncio.sleep(REFRESH_S if self.known else RETRY_S)

    async def _ask(self) -> str:
        url = join_url(self.settings.openai_base_url, "/v1/models")
        key = self.settings.openai_api_key.reveal() or PLACEHOLDER_KEY
        found = await self.fetcher.fetch(
            url, headers={"Authorization": f"Bearer {key}"}, timeout_s=TIMEOUT_S, limit_bytes=1 << 20
        )
        try:
            told = json.loads(found.body)
            # Together's list stands alone.
            return str((told if isinstance(told, list) else told["data"])[0]["id"])
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise FetchFailed("no list of models") from error
