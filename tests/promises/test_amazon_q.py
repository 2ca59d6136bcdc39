"""Amazon Q's routes: everything but the service behind them (contract 14)."""

import copy
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.http_server import Answering, LoopbackServer, Request

APPLICATION, DELETE, VERIFY, EVENTS = (
    f"/v1/amazon_q/{end}"
    for end in ("oauth/application", "oauth/application/delete", "oauth/application/verify", "events")
)
NOTE = {
    "command": "dev",
    "project_path": "group/project",
    "project_id": "7",
    "discussion_id": "d",
    "note_id": None,
}
MERGE_REQUEST = NOTE | {
    "source": "merge_request",
    "merge_request_id": "1",
    "merge_request_iid": 2,
    "source_branch": "a",
    "target_branch": "main",
    "last_commit_id": "c0ffee",
}
ISSUE = NOTE | {"source": "issue", "issue_id": "1", "issue_iid": "2"}
WEB_HOOK = {"source": "web_hook", "data": {"any": ["thing"]}}
BODIES: dict[str, dict[str, Any]] = {
    APPLICATION: {
        "client_id": "c",
        "client_secret": "s",
        "instance_url": "https://gitlab.example.com",
        "redirect_url": "https://gitlab.example.com/back",
        "role_arn": "arn:aws:iam::1:role/q",
    },
    DELETE: {"role_arn": "arn:aws:iam::1:role/q"},
    VERIFY: {"role_arn": "arn:aws:iam::1:role/q", "code": "c"},
    EVENTS: {"role_arn": "arn:aws:iam::1:role/q", "code": "c", "payload": MERGE_REQUEST},
}


async def ask(
    gateway: RunningGateway, path: str, body: Any, scopes: tuple[str, ...] = ("amazon_q_integration",)
) -> Answer:
    return await gateway.post(path, json=body, token=gateway.token(unit_primitives=scopes))


def event(payload: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An event with this payload; a change to `...` removes the member from it."""
    changed = {name: value for name, value in (payload | changes).items() if value is not ...}
    return BODIES[EVENTS] | {"payload": changed}


def fault(answer: Answer) -> tuple[int, list[Any], str]:
    (row,) = answer.json()["detail"]
    return answer.status, row["loc"], row["type"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_valid_permitted_call_gets_501(gateway: RunningGateway, path: str) -> None:
    answer = await ask(gateway, path, BODIES[path])

    assert (answer.status, answer.json()["detail"]) == (501, "Amazon Q is not available in this gateway")
    assert answer.refusal.code == "amazon_q_unavailable"


@pytest.mark.parametrize("path", BODIES)
async def test_without_the_unit_primitive_it_is_403(gateway: RunningGateway, path: str) -> None:
    answer = await ask(gateway, path, BODIES[path], scopes=("duo_chat",))

    assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to perform action")
    assert answer.refusal.missing == "amazon_q_integration"


@pytest.mark.parametrize("path", BODIES)
async def test_a_faulty_body_is_told_first(gateway: RunningGateway, path: str) -> None:
    for name in BODIES[path]:
        body = {other: value for other, value in BODIES[path].items() if other != name}
        assert fault(await ask(gateway, path, body, scopes=())) == (422, ["body", name], "missing")
    assert (await gateway.post(path, body=b"{", token=gateway.token(unit_primitives=[]))).status == 422


@pytest.mark.parametrize(
    ("path", "member", "limit"),
    [
        (APPLICATION, "client_id", 255),
        (APPLICATION, "client_secret", 1000),
        (APPLICATION, "instance_url", 500),
        (APPLICATION, "redirect_url", 500),
        (APPLICATION, "role_arn", 2048),
        (DELETE, "role_arn", 2048),
        (VERIFY, "code", 255),
        (EVENTS, "code", 255),
        (EVENTS, "event_id", 255),
    ],
)
async def test_each_limit_holds_alone(gateway: RunningGateway, path: str, member: str, limit: int) -> None:
    good, bad = ({**BODIES[path], member: "ü" * count} for count in (limit, limit + 1))

    assert (await ask(gateway, path, good)).status == 501
    assert fault(await ask(gateway, path, bad)) == (422, ["body", member], "string_too_long")


@pytest.mark.parametrize(
    ("member", "limit"), [("command", 255), ("project_path", 1024), ("project_id", 1024), ("discussion_id", 1024)]
)
async def test_each_limit_of_a_note_holds_alone(gateway: RunningGateway, member: str, limit: int) -> None:
    good, bad = (event(ISSUE, **{member: "x" * count}) for count in (limit, limit + 1))

    assert (await ask(gateway, EVENTS, good)).status == 501
    assert fault(await ask(gateway, EVENTS, bad)) == (422, ["body", "payload", member], "string_too_long")


@pytest.mark.parametrize("payload", [MERGE_REQUEST, ISSUE, WEB_HOOK], ids=lambda payload: str(payload["source"]))
async def test_each_kind_of_event_has_its_own_members(gateway: RunningGateway, payload: dict[str, Any]) -> None:
    assert (await ask(gateway, EVENTS, event(payload, novel=1))).status == 501
    for name in payload.keys() - {"note_id"}:
        answer = await ask(gateway, EVENTS, event(payload, **{name: ...}))
        assert fault(answer) == (422, ["body", "payload", name], "missing")


async def test_optional_members_may_be_absent_null_or_there(gateway: RunningGateway) -> None:
    optional = dict.fromkeys(("start_sha", "head_sha", "file_path", "user_message", "note_id"), "x")
    lines = {"comment_start_line": 3, "comment_end_line": "4"}

    for changes in (optional | lines, dict.fromkeys(optional | lines)):
        assert (await ask(gateway, EVENTS, event(MERGE_REQUEST, **changes))).status == 501
    answer = await ask(gateway, EVENTS, event(MERGE_REQUEST, start_sha=["x"]))
    assert fault(answer) == (422, ["body", "payload", "start_sha"], "string_type")


@pytest.mark.parametrize("source", ["epic", "x" * 256, 7])
async def test_another_source_is_a_fault(gateway: RunningGateway, source: Any) -> None:
    answer = await ask(gateway, EVENTS, event(ISSUE, source=source))

    assert fault(answer) == (422, ["body", "payload", "source"], "literal_error")


@pytest.mark.parametrize("payload", [None, "x", [], {"source": "web_hook", "data": []}])
async def test_a_payload_is_an_object(gateway: RunningGateway, payload: Any) -> None:
    assert (await ask(gateway, EVENTS, BODIES[EVENTS] | {"payload": payload})).status == 422


@pytest.mark.parametrize("path", BODIES)
async def test_the_quota_is_asked_before_the_answer(start_gateway: StartGateway, path: str) -> None:
    asked: list[str] = []

    async def refuse(request: Request, answering: Answering) -> None:
        if request.method == "HEAD":
            asked.append(request.query)
        await answering.head(402, [("Content-Length", "0")])

    async with LoopbackServer(refuse) as portal:
        gateway = await start_gateway(
            env={
                "AIGW_CUSTOMER_PORTAL_URL": portal.url,
                "AIGW_CUSTOMERSDOT__API_USER": "u",
                "AIGW_CUSTOMERSDOT__API_TOKEN": "t",
            }
        )
        answer = await ask(gateway, path, copy.deepcopy(BODIES[path]))

    assert (answer.status, answer.json()["error_code"]) == (402, "USAGE_QUOTA_EXCEEDED")
    assert "event_type=amazon_q_integration" in asked[0]
