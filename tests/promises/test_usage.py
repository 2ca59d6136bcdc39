"""One durable usage record for each admitted call, whichever way it came in and however it ended (US)."""

import asyncio
import contextlib
import fcntl
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import USER_ID, RunningGateway, running_gateway
from tests.support.issuer import INSTANCE_ID, FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.usage import HeldDisk
from tests.support.usage_sink import write_sinks
from tests.support.waiting import eventually

PROXY = "ai_gateway_model_provider_proxy"


@dataclass(frozen=True, slots=True)
class Way:
    """One way into the gateway that ends at a model."""

    name: str
    path: str
    body: Any
    unit_primitive: str
    headers: tuple[tuple[str, str], ...] = ()
    feature: str = ""

    def ask(self, gateway: RunningGateway) -> dict[str, Any]:
        """Keywords of `gateway.post` and `gateway.stream`."""
        token = gateway.token(unit_primitives=[self.unit_primitive])
        return {"path": self.path, "json": self.body, "token": token, "headers": dict(self.headers)}


def code(stream: bool) -> Any:
    above = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""}
    return {"current_file": above, "stream": stream}


def suggestion(stream: bool) -> Any:
    above = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": "", "stream": stream}
    return {"prompt_components": [{"type": "code_editor_completion", "payload": above}]}


def messages(stream: bool) -> Any:
    said = [{"role": "user", "content": "Hi"}]
    return {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": said, "stream": stream}


def chat_completions(stream: bool) -> Any:
    return messages(stream) | {"model": "gpt-5-mini-2025-08-07", "stream_options": {"include_usage": True}}


def responses(stream: bool) -> Any:
    return {"model": "claude-sonnet-4-6", "input": "Hi", "stream": stream}


PROXY_HEADERS = (("X-Gitlab-Unit-Primitive", PROXY),)
STEP = {"messages": [{"role": "user", "content": "Hi"}]}
V1_CHAT = {
    "prompt_components": [
        {
            "type": "prompt",
            "metadata": {"source": "t", "version": "1"},
            "payload": {"content": "Hi", "provider": "anthropic", "model": "claude-sonnet-4-6"},
        }
    ]
}
FEATURE = {"prompt_components": [{"type": "summarize_text", "payload": {"content": "long"}}]}
PROMPT = {"inputs": {"diff": "a diff"}}

WHOLE = [
    Way("v2 code", "/v2/code/completions", code(False), "complete_code"),
    Way("v3 code", "/v3/code/completions", suggestion(False), "complete_code"),
    Way("v4 code", "/v4/code/suggestions", suggestion(False), "complete_code"),
    Way("prompt", "/v1/prompts/generate_commit_message", PROMPT, "generate_commit_message"),
    Way("anthropic proxy", "/v1/proxy/anthropic/v1/messages", messages(False), PROXY, PROXY_HEADERS),
    Way("openai proxy", "/v1/proxy/openai/v1/chat/completions", chat_completions(False), PROXY, PROXY_HEADERS),
    Way("chat completions", "/openai/v1/chat/completions", messages(False), PROXY),
    Way("responses", "/openai/v1/responses", responses(False), PROXY),
    Way("messages", "/anthropic/v1/messages", messages(False), PROXY),
    Way("v1 chat", "/v1/chat/agent", V1_CHAT, "duo_chat"),
    Way("feature", "/v1/summarize_text", FEATURE, "summarize_text"),
]
STREAMED = [
    Way("v2 code", "/v2/code/completions", code(True), "complete_code"),
    Way("v3 code", "/v3/code/completions", suggestion(True), "complete_code"),
    Way("v4 code", "/v4/code/suggestions", suggestion(True), "complete_code"),
    Way("chat step", "/v2/chat/agent", STEP, "duo_chat"),
    Way("prompt", "/v1/prompts/generate_commit_message", PROMPT | {"stream": True}, "generate_commit_message"),
    Way("anthropic proxy", "/v1/proxy/anthropic/v1/messages", messages(True), PROXY, PROXY_HEADERS),
    Way("openai proxy", "/v1/proxy/openai/v1/chat/completions", chat_completions(True), PROXY, PROXY_HEADERS),
    Way("chat completions", "/openai/v1/chat/completions", messages(True), PROXY),
    Way("responses", "/openai/v1/responses", responses(True), PROXY),
    Way("messages", "/anthropic/v1/messages", messages(True), PROXY),
    Way("messages by chat completions", "/anthropic/v1/messages", chat_completions(True) | {"max_tokens": 9}, PROXY),
]
EVERY = [*WHOLE, *STREAMED]


def named(ways: list[Way]) -> Any:
    return pytest.mark.parametrize(
        "way", [pytest.param(way, id=f"{way.name}{' streamed' * (way in STREAMED)}") for way in ways]
    )


@named(EVERY)
async def test_a_call_leaves_one_record_with_its_tokens_and_for_whom_it_was(gateway: RunningGateway, way: Way) -> None:
    gateway.provider.answer_with(text="fine", input_tokens=31, output_tokens=17)

    answer = await gateway.post(**way.ask(gateway))

    assert answer.status == 200
    (record,) = gateway.usage()
    assert record["status"] == "completed"
    assert (record["input_tokens"], record["output_tokens"], record["source"]) == (31, 17, "provider")
    assert (record["instance"], record["realm"], record["user"]) == (INSTANCE_ID, "self-managed", USER_ID)
    assert record["unit_primitive"] == way.unit_primitive
    assert record["request_id"] == answer.header("x-request-id")
    assert way.path.startswith(record["endpoint"] or "?")
    assert record["stream"] is (way in STREAMED)
    is_unread = way in WHOLE and way.headers == PROXY_HEADERS  # of these only the tokens are looked at
    assert record["finish_reason"] == ("" if is_unread else "stop")


async def test_a_token_that_names_no_instance_stands_for_its_subject(gateway: RunningGateway) -> None:
    asked = WHOLE[0].ask(gateway)
    token = gateway.token(unit_primitives=[WHOLE[0].unit_primitive], sub="acme", gitlab_instance_id=None)

    answer = await gateway.post(**asked | {"token": token})

    assert answer.status == 200
    assert [record["instance"] for record in gateway.usage()] == ["acme"]


@named(EVERY)
async def test_nothing_that_ends_an_answer_goes_out_before_its_record_is_durable(
    start_gateway: StartGateway, way: Way
) -> None:
    disk = HeldDisk()
    gateway = await start_gateway(disk=disk)
    disk.hold()
    asking = asyncio.create_task(gateway.post(**way.ask(gateway)))

    await disk.held()
    await gateway.get("/monitoring/healthz")

    assert not asking.done()
    disk.release()
    assert (await asking).is_whole


@named(STREAMED)
async def test_a_client_that_leaves_in_the_middle_has_one_record_with_counted_tokens(
    gateway: RunningGateway, way: Way
) -> None:
    gateway.provider.answer_with(pieces=["Final ", "Answer: ", "and more ", "and more"], hold_after=6)
    async with gateway.stream(**way.ask(gateway)) as answer:
        await answer.next_chunk()

    record = await the_record(gateway)
    assert record["status"] == "client_cancelled"
    assert record["input_tokens"] > 0
    assert record["output_tokens"] >= 1


@named(EVERY)
async def test_a_client_that_leaves_before_anything_came_has_a_record_of_what_was_sent(
    gateway: RunningGateway, way: Way
) -> None:
    gateway.provider.stall()
    asking = asyncio.create_task(gateway.post(**way.ask(gateway)))
    await gateway.provider.request(1)

    asking.cancel()

    record = await the_record(gateway)
    assert (record["status"], record["source"], record["output_tokens"]) == ("client_cancelled", "counted", 0)
    assert record["input_tokens"] > 0


@named(STREAMED)
async def test_a_provider_that_breaks_off_leaves_one_record_that_says_so(gateway: RunningGateway, way: Way) -> None:
    gateway.provider.cut_after(5)

    await gateway.post(**way.ask(gateway))

    (record,) = gateway.usage()
    assert (record["status"], record["error_code"]) == ("upstream_error", "provider_broke")


@named(EVERY)
async def test_a_call_that_the_provider_refuses_costs_nothing(gateway: RunningGateway, way: Way) -> None:
    gateway.provider.fail_with(500)

    await gateway.post(**way.ask(gateway))

    (record,) = gateway.usage()
    assert (record["status"], record["input_tokens"], record["output_tokens"]) == ("upstream_error", 0, 0)


async def test_what_is_refused_before_it_is_sent_leaves_no_record(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["duo_chat"])

    answer = await gateway.post("/v2/code/completions", json=code(False), token=token)

    assert answer.status == 403
    assert gateway.usage() == []


async def test_embeddings_leave_a_record_as_well(gateway: RunningGateway) -> None:
    answer = await gateway.post(
        "/openai/v1/embeddings",
        json={"model": "text-embedding-3-small", "input": ["one", "two"]},
        token=gateway.token(unit_primitives=[PROXY]),
    )

    assert answer.status == 200
    (record,) = gateway.usage()
    assert (record["status"], record["output_tokens"]) == ("completed", 0)
    assert record["input_tokens"] == answer.json()["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("asked", "named"), [("claude-sonnet-4-6", "claude_sonnet_4_6"), ("claude-of-tomorrow", "claude-of-tomorrow")]
)
async def test_a_relayed_model_has_its_name_in_the_catalogue_so_that_reports_tell_it_once(
    gateway: RunningGateway, asked: str, named: str
) -> None:
    await gateway.post(
        "/v1/proxy/anthropic/v1/messages",
        json=messages(False) | {"model": asked},
        token=gateway.token(unit_primitives=[PROXY]),
        headers=dict(PROXY_HEADERS),
    )

    (record,) = gateway.usage()
    assert (record["model"], record["upstream_model"]) == (named, asked)


@named([way for way in EVERY if "proxy" in way.name])
async def test_a_relayed_models_name_of_any_length_is_kept_as_far_as_a_record_has_room(
    gateway: RunningGateway, way: Way
) -> None:
    asked = way.ask(gateway)
    name = asked["json"]["model"] + "x" * 100_000

    answer = await gateway.post(**asked | {"json": asked["json"] | {"model": name}})

    assert answer.status == 200
    assert name.encode() in gateway.provider.requests[0].body
    (record,) = gateway.usage()
    assert (record["status"], record["upstream_model"]) == ("completed", name[:256])
    assert len(json.dumps(record)) < 4_000


async def test_counting_tokens_and_listing_models_are_no_calls(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=[PROXY])
    headers = dict(PROXY_HEADERS)

    counted = await gateway.post(
        "/v1/proxy/anthropic/v1/messages/count_tokens", json=messages(False), token=token, headers=headers
    )
    listed = await gateway.get("/v1/proxy/openai/v1/models", token=token, headers=headers)

    assert (counted.status, listed.status) == (200, 200)
    assert gateway.usage() == []


async def the_record(gateway: RunningGateway) -> dict[str, Any]:
    """The only record, once the gateway has written it."""

    async def is_there() -> bool:
        return bool(gateway.usage())

    await eventually(is_there)
    (record,) = gateway.usage()
    return record


async def test_a_clock_that_jumps_is_flagged_and_makes_no_duration_negative(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(clock=clock)
    way = STREAMED[0]
    gateway.provider.answer_with(pieces=["a", "b", "c"], hold_after=4)
    async with gateway.stream(**way.ask(gateway)) as answer:
        await answer.next_chunk()
        clock.jump(-30)  # within the leeway of the next token
        gateway.provider.release()
        await answer.rest()
    await gateway.post(**way.ask(gateway))

    jumped, after = gateway.usage()

    assert (jumped["clock_jumped"], after["clock_jumped"]) == (True, False)
    assert jumped["duration_s"] >= 0
    assert jumped["started_at"] <= jumped["ended_at"]
    assert jumped["id"] < after["id"]  # in the order of admission, although the wall clock ran back


async def test_no_record_holds_a_prompt_or_an_answer(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text="ANSWER-CANARY")
    asked = json.loads(json.dumps(messages(False)).replace("Hi", "PROMPT-CANARY"))

    await gateway.post(
        "/v1/proxy/anthropic/v1/messages",
        json=asked,
        token=gateway.token(unit_primitives=[PROXY]),
        headers=dict(PROXY_HEADERS),
    )

    assert "CANARY" not in json.dumps(gateway.usage())


@named([STREAMED[0], STREAMED[2], STREAMED[3], STREAMED[5], STREAMED[6]])
async def test_a_client_that_leaves_after_any_byte_has_exactly_one_record(gateway: RunningGateway, way: Way) -> None:
    gateway.provider.answer_with(pieces=["Final ", "Answer: ", "and ", "more"])
    asked = way.ask(gateway)
    asked["headers"]["Connection"] = "close"
    request = gateway.request_bytes("POST", **asked)
    async with await gateway.connect() as connection:
        await connection.send(request)
        length = len(await connection.read_to_end())
    offsets = [0, 1, *range(length // 30, length, length // 30), length - 1, length]

    for offset in offsets:
        async with await gateway.connect() as connection:
            await connection.send(request)
            if offset:
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await connection.reader.readexactly(offset)
            connection.reset()

    sent = len(gateway.provider.requests)

    async def is_there() -> bool:
        return len(gateway.usage()) == sent and not gateway.running.parts.ledger.spool.running

    await eventually(is_there)
    records = gateway.usage()
    assert len({record["id"] for record in records}) == len(records) == sent
    assert {record["status"] for record in records} <= {"completed", "client_cancelled"}


@named(STREAMED)
async def test_a_call_that_a_stopping_gateway_cuts_is_interrupted_and_no_fault_of_its_client(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path, way: Way
) -> None:
    provider.answer_with(pieces=["Final ", "Answer: ", "and more ", "and more"], hold_after=6)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(provider, issuer, tmp_path, no_sinks(tmp_path)))
        answer = await stack.enter_async_context(gateway.stream(**way.ask(gateway)))
        await answer.next_chunk()

        await gateway.running.aclose()

        (record,) = gateway.usage()
        line = await gateway.log.find(path=way.path)
        stack.pop_all()
    assert (record["status"], record["error_code"]) == ("interrupted", "server_draining")
    assert record["output_tokens"] > 0
    assert line["outcome"] == "interrupted"


def locks_in(folder: Path) -> list[Path]:
    return list(folder.rglob("lock"))


async def test_a_part_that_cannot_end_keeps_no_other_one_from_its_end(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(provider, issuer, tmp_path, no_sinks(tmp_path)))

        async def fail() -> None:
            raise OSError("no end")

        with contextlib.ExitStack() as files:
            locks = [files.enter_context(path.open("rb")) for path in locks_in(tmp_path)]
            gateway.running.closers.insert(0, fail)
            await gateway.running.aclose()

            assert locks
            for lock in locks:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where the spool still has its folder
        gateway.running.closers.remove(fail)
        stack.pop_all()
    errors = [line["message"] for line in gateway.log.lines if line["level"] == "error"]
    assert errors == ["a part of a worker did not end"]


async def test_a_call_that_begins_while_a_stopping_gateway_ends_the_others_is_told_so(
    provider: ScriptedProvider, issuer: FakeIssuer, tmp_path: Path
) -> None:
    provider.stall(after_events=2)
    path, asked = "/v1/proxy/anthropic/v1/messages", {"model": "claude-sonnet-4-6", "stream": True, "messages": []}
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway(provider, issuer, tmp_path, no_sinks(tmp_path)))
        token, headers = gateway.token(unit_primitives=[PROXY]), {"X-Gitlab-Unit-Primitive": PROXY}
        async with (
            await gateway.connect() as late,
            gateway.stream(path, json=asked, token=token, headers=headers) as running,
        ):
            await running.next_chunk()

            stopping = asyncio.create_task(gateway.running.aclose())
            late.writer.write(gateway.request_bytes("POST", path, json=asked, token=token, headers=headers))
            answer = await late.read_answer()
            rest = await running.rest()
            await stopping
        records = gateway.usage()
        stack.pop_all()
    assert (answer.status, answer.refusal.code) == (503, "server_draining")
    assert b"server_draining" in rest.body
    assert {(record["status"], record["error_code"]) for record in records} == {("interrupted", "server_draining")}


def no_sinks(folder: Path) -> dict[str, str]:
    """A receiver that is not there: what it would get stays in the spool."""
    overlay = write_sinks(folder / "overlay", {"name": "rollup", "type": "http", "url": "http://127.0.0.1:9/"})
    return {"AIGW_CATALOG": str(overlay)}
