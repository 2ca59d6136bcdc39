"""Amazon Q's routes (contract 14): bodies, permission and quota as for any endpoint; then 501, for want of an API.

The service behind them is not public. Refusing late keeps clients' own faults visible as such.
"""

from collections.abc import Callable
from typing import Any

from torana.access.permissions import permit
from torana.api import reading
from torana.api.exchange import Exchange, Reply, Route
from torana.caller import Permit
from torana.errors import Invalid, Refusal

Members = dict[str, Any]

_EVENT = ("payload",)
_MERGE_REQUEST = (
    "merge_request_id", "merge_request_iid", "source_branch", "target_branch", "last_commit_id",
)  # fmt: skip
_MERGE_REQUEST_OPTIONAL = (
    "start_sha", "head_sha", "file_path", "comment_start_line", "comment_end_line", "user_message",
)  # fmt: skip


class AmazonQEndpoints:
    def routes(self) -> list[Route]:
        def post(path: str, read: Callable[[Exchange], None]) -> Route:
            return Route(
                path=f"/v1/amazon_q/{path}",
                read=read,
                policy=self.policy,
                handle=self.refuse,
                quota="amazon_q_integration",
            )

        return [
            post("oauth/application", self.read_application),
            post("oauth/application/delete", self.read_deletion),
            post("oauth/application/verify", self.read_verification),
            post("events", self.read_event),
        ]

    def read_application(self, exchange: Exchange) -> None:
        body = reading.read_object(exchange.body)
        for name, limit in (("client_id", 255), ("client_secret", 1000), ("instance_url", 500), ("redirect_url", 500)):
            reading.text(body, name, limit=limit, required=True)
        _read_role(body)

    def read_deletion(self, exchange: Exchange) -> None:
        _read_role(reading.read_object(exchange.body))

    def read_verification(self, exchange: Exchange) -> None:
        body = reading.read_object(exchange.body)
        _read_role(body)
        reading.text(body, "code", limit=255, required=True)

    def read_event(self, exchange: Exchange) -> None:
        body = reading.read_object(exchange.body)
        _read_role(body)
        reading.text(body, "code", limit=255, required=True)
        reading.text(body, "event_id", limit=255)
        payload = reading.mapping(body, "payload", required=True)
        kinds = ("merge_request", "issue", "web_hook")
        source = reading.choice(payload, "source", kinds, _EVENT, required=True)
        if source == "web_hook":
            reading.mapping(payload, "data", _EVENT, required=True)
            return
        reading.text(payload, "command", _EVENT, limit=255, required=True)
        for name in ("project_path", "project_id", "discussion_id"):
            _read_name(payload, name, limit=1024, required=True)
        _read_name(payload, "note_id")
        of_merge_request = source == "merge_request"
        for name in _MERGE_REQUEST if of_merge_request else ("issue_id", "issue_iid"):
            _read_name(payload, name, required=True)
        for name in _MERGE_REQUEST_OPTIONAL if of_merge_request else ():
            _read_name(payload, name)

    def policy(self, exchange: Exchange, _order: None) -> Permit:
        return permit(exchange.caller, "amazon_q_integration", denied="Unauthorized to perform action")

    async def refuse(self, exchange: Exchange, permit: Permit, _order: None) -> Reply:
        raise amazon_q_unavailable()


def amazon_q_unavailable() -> Refusal:
    """What a valid, permitted call gets."""
    return Refusal(501, "amazon_q_unavailable", "Amazon Q is not available in this gateway")


def _read_role(body: Members) -> None:
    reading.text(body, "role_arn", limit=2048, required=True)


def _read_name(payload: Members, name: str, *, limit: int | None = None, required: bool = False) -> None:
    """A text or a whole number: instances send ids as either."""
    value = payload.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return
    if value is not None and not isinstance(value, str):
        raise Invalid((*_EVENT, name), "Input should be a valid string", "string_type")
    reading.text(payload, name, _EVENT, limit=limit, required=required)
