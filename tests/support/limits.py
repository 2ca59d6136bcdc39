"""Limits of the operator for one test: an overlay with a limits.yml, and calls that meet them."""

import json
from pathlib import Path
from typing import Any

from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

PATH = "/v1/chat/agent"
SONNET = "claude-sonnet-4-6"


def write_limits(folder: Path, *limits: str | dict[str, Any]) -> dict[str, str]:
    """The environment of a gateway with these limits; a text is the limit of a record named `limit-<number>`."""
    folder.mkdir(exist_ok=True)
    records = [
        {"name": f"limit-{number}", **({"limit": each} if isinstance(each, str) else each)}
        for number, each in enumerate(limits)
    ]
    (folder / "limits.yml").write_text(json.dumps(records, indent=1))  # JSON is YAML
    return {"AIGW_CATALOG": str(folder), "AIGW_ROUTING__TRIES": "1"}


def body(text: str = "Hello", **payload: Any) -> dict[str, Any]:
    """A client's own prompt for `PATH`; `max_tokens_to_sample` and others stand in `params`."""
    metadata = {"source": "GitLab EE", "version": "17.11.0"}
    component = {"type": "prompt", "metadata": metadata, "payload": {"content": text, **payload}}
    return {"prompt_components": [component]}


def token_of(gateway: RunningGateway, instance: str = "acme", **claims: Any) -> str:
    return gateway.token(
        unit_primitives=["duo_chat", "summarize_text"], instance_id=instance, **{"lifetime_s": 9e5} | claims
    )


async def ask(gateway: RunningGateway, *, user: str = "mia", instance: str = "acme", **asked: Any) -> Answer:
    """One call of a user of an instance."""
    return await gateway.post(
        PATH,
        json=body(**asked),
        token=token_of(gateway, instance),
        headers={"X-Gitlab-Global-User-Id": user},
    )


async def ask_of(gateway: RunningGateway, size: int, **headers: str) -> Answer:
    """A call whose body has `size` bytes."""
    frame = len(json.dumps(body("")))
    asked = json.dumps(body("a" * (size - frame))).encode()
    assert len(asked) == size
    return await gateway.post(PATH, body=asked, token=token_of(gateway), headers=headers)


async def ask_unread(gateway: RunningGateway, size: int, **headers: str) -> int:
    """What a call is answered that sends its body when it is asked to, and is not; 100 where it is asked."""
    told = {"Content-Length": str(size), "Expect": "100-continue", **headers}
    async with await gateway.connect() as connection:
        await connection.send(gateway.request_bytes("POST", PATH, token=token_of(gateway), headers=told))
        return (await connection.read_answer()).status


async def statuses(gateway: RunningGateway, count: int, **asked: Any) -> list[int]:
    return [(await ask(gateway, **asked)).status for _ in range(count)]


async def figure(gateway: RunningGateway, name: str, limit: str = "limit-0") -> float:
    """One number of /metrics, summed over units."""
    text = (await gateway.monitoring("/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith(name + "{") and f'limit="{limit}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def is_figure(gateway: RunningGateway, name: str, value: float, limit: str = "limit-0") -> bool:
    return await figure(gateway, name, limit) == value
