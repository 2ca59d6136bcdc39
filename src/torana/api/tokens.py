"""POST /v1/code/user_access_token: a one-hour token for a user's direct connection (contract 5)."""

from typing import Any

from torana.access.minting import Minter
from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.caller import Permit


class TokenEndpoints:
    """Minting; an instance asks, never a user."""

    def __init__(self, minter: Minter) -> None:
        self.minter = minter

    def routes(self) -> list[Route]:
        paths = ("/v1/code/user_access_token", "/auth/v1/code/user_access_token")
        return [
            Route(
                path=path, policy=self.policy, handle=self.mint, body="mint", quota="code_completions", label=paths[0]
            )
            for path in paths
        ]

    def policy(self, exchange: Exchange, _order: Any) -> Permit:
        return self.minter.permit(exchange.caller)

    async def mint(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        minted = self.minter.mint(permit.caller, exchange.headers)
        return json_reply({"token": minted.token, "expires_at": minted.expires_at})
