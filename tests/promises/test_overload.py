"""A gateway with more to do than it can (issue of limits, point 5): some wait, some hear 503, probes always answer."""

from contextlib import AsyncExitStack

from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer, RawConnection, connect, write_request
from tests.support.waiting import eventually

from torana.api.admission import LOOKED_AT_PER_TURN, STARTS_PER_TURN

PATH = "/v1/prompts/model_configuration/check"
BODY = b'{"inputs":{}}'


async def ask_at_once(gateway: RunningGateway, requests: list[bytes]) -> list[Answer]:
    """Each on a connection of its own; all are there before the gateway looks."""
    async with AsyncExitStack() as stack:
        connections: list[RawConnection] = [
            await stack.enter_async_context(await connect(gateway.port)) for _ in requests
        ]
        for connection, request in zip(connections, requests, strict=True):
            connection.writer.write(request)
        return [await connection.read_answer() for connection in connections]


RIGHTS = ["complete_code", "generate_embeddings_codebase"]


def prompt_request(gateway: RunningGateway, path: str = PATH) -> bytes:
    return gateway.request_bytes("POST", path, body=BODY, token=gateway.token(unit_primitives=RIGHTS))


async def test_a_crowd_waits_for_its_turn_and_is_answered(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()

    answers = await ask_at_once(gateway, [prompt_request(gateway)] * (3 * STARTS_PER_TURN))

    assert {answer.status for answer in answers} == {200}


async def test_a_crowd_of_targets_without_a_path_holds_nobody_up(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    nowhere = b"GET http://elsewhere.example HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"

    refused = await ask_at_once(gateway, [nowhere] * (3 * LOOKED_AT_PER_TURN))

    assert {answer.status for answer in refused} == {400}
    assert (await gateway.post(PATH, body=BODY, token=gateway.token(unit_primitives=RIGHTS))).status == 200


async def test_beyond_the_line_the_answer_is_503_with_a_time_to_come_back(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})

    answers = await ask_at_once(gateway, [prompt_request(gateway)] * (STARTS_PER_TURN + 8))

    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == 7
    for answer in refused:
        assert answer.json()["detail"] == "Service Unavailable"
        assert (answer.refusal.code, answer.refusal.layer, answer.refusal.retryable) == ("overloaded", "gateway", True)
        assert 1 <= int(answer.header("retry-after") or 0) <= 5
        assert answer.header("x-request-id") == answer.refusal.request_id
    assert len(gateway.provider.requests) == STARTS_PER_TURN + 1


async def test_whoever_is_turned_away_has_an_access_line_with_the_cause(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})

    answers = await ask_at_once(gateway, [prompt_request(gateway)] * (STARTS_PER_TURN + 2))

    [refused] = [answer for answer in answers if answer.status == 503]
    lines = [line for line in gateway.log.lines if line.get("correlation_id") == refused.header("x-request-id")]
    assert [(line["status_code"], line["refusal_code"]) for line in lines] == [(503, "overloaded")]


async def test_a_connection_is_good_for_another_request_after_it_was_turned_away(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})
    request = prompt_request(gateway)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(gateway.port)) for _ in range(STARTS_PER_TURN + 2)]
        for connection in connections:
            connection.writer.write(request)
        first = [(await connection.read_answer()).status for connection in connections]
        turned_away = connections[first.index(503)]

        await turned_away.send(request)

        assert (await turned_away.read_answer()).status == 200


async def test_probes_wait_in_no_line(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})
    probe = write_request("GET", "/monitoring/healthz", {}, b"")

    answers = await ask_at_once(gateway, [prompt_request(gateway)] * (STARTS_PER_TURN + 8) + [probe] * 8)

    assert [answer.status for answer in answers[-8:]] == [200] * 8


async def test_background_work_is_turned_away_before_interactive_work(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "2"})
    background = gateway.request_bytes(
        "POST",
        "/v1/embeddings/code_embeddings/index",
        json={"model_metadata": {"provider": "gitlab", "identifier": ""}, "contents": ["x"]},
        token=gateway.token(unit_primitives=RIGHTS),
    )

    answers = await ask_at_once(
        gateway, [prompt_request(gateway)] * STARTS_PER_TURN + [background] * 4 + [prompt_request(gateway)] * 2
    )

    assert [answer.status for answer in answers[STARTS_PER_TURN:]] == [503] * 4 + [200] * 2


async def test_clients_of_a_vendors_dialect_hear_of_it_in_that_dialect(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})
    request = prompt_request(gateway, "/anthropic/v1/messages")

    answers = await ask_at_once(gateway, [prompt_request(gateway)] * (STARTS_PER_TURN + 1) + [request])

    assert answers[-1].json()["error"]["type"] == "overloaded_error"
    assert answers[-1].header("x-torana-code") == "overloaded"


async def test_metrics_count_who_was_turned_away(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})

    await ask_at_once(gateway, [prompt_request(gateway)] * (STARTS_PER_TURN + 4))

    assert 'torana_requests_shed_total{reason="full"} 3' in (await gateway.monitoring("/metrics")).text


async def test_whoever_is_turned_away_in_the_middle_of_a_request_is_hung_up_on(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})
    request = prompt_request(gateway)

    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(gateway.port)) for _ in range(STARTS_PER_TURN + 2)]
        for connection in connections[:-1]:
            connection.writer.write(request)
        connections[-1].writer.write(request[:-1])
        answers = [await connection.read_answer() for connection in connections[:-1]]
        last = await connections[-1].read_answer()

        assert {answer.status for answer in answers} == {200}
        assert (last.status, last.header("connection")) == (503, "close")
        assert await connections[-1].is_closed_by_peer()


async def test_an_id_is_repeated_whenever_its_request_is_turned_away(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})
    token = gateway.token(unit_primitives=RIGHTS)
    retried = gateway.request_bytes("POST", PATH, body=BODY, token=token, headers={"X-Request-Id": "a/retried+call="})
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(gateway.port)) for _ in range(STARTS_PER_TURN + 2)]
        heard = []

        for _ in range(2):
            for connection in connections[:-1]:
                connection.writer.write(prompt_request(gateway))
            connections[-1].writer.write(retried)
            answers = [await connection.read_answer() for connection in connections]
            heard.append((answers[-1].status, answers[-1].header("x-request-id")))

    assert heard == [(503, "a/retried+call=")] * 2


async def test_the_line_of_whoever_is_turned_away_tells_the_path_that_was_asked(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__QUEUE": "1"})
    path = "/v1/2000-01-01T00:00:00Z/9007199254740881"

    answers = await ask_at_once(
        gateway, [prompt_request(gateway)] * (STARTS_PER_TURN + 1) + [prompt_request(gateway, path)]
    )

    line = await gateway.log.find(correlation_id=answers[-1].header("x-request-id"))
    assert (line["status_code"], line["path"]) == (503, path)


# The memory that bodies take while they come, and while they are answered

RELAY = "/v1/proxy/anthropic/v1/messages"
MIB = 1 << 20


class Sending:
    """A request of `instance` whose body is all there but for its last byte."""

    def __init__(self, gateway: RunningGateway, connection: RawConnection, instance: str, mib: int) -> None:
        token = gateway.token(unit_primitives=["ai_gateway_model_provider_proxy"], instance_id=instance)
        named = {"X-Gitlab-Unit-Primitive": "ai_gateway_model_provider_proxy"}
        text = b'{"model":"claude-sonnet-4-6","max_tokens":9,"messages":[{"role":"user","content":"%b"}]}'
        body = text % (b"a" * (mib * MIB))
        self.connection = connection
        self.request = gateway.request_bytes("POST", RELAY, body=body, token=token, headers=named)

    async def begin(self) -> None:
        await self.connection.send(self.request[:-1])

    async def end(self) -> Answer:
        await self.connection.send(self.request[-1:])
        return await self.connection.read_answer()


async def sent(gateway: RunningGateway, stack: AsyncExitStack, instance: str, mib: int) -> Sending:
    sending = Sending(gateway, await stack.enter_async_context(await gateway.connect()), instance, mib)
    await sending.begin()
    return sending


async def taken_mib(gateway: RunningGateway) -> float:
    text = (await gateway.monitoring("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("torana_body_memory_bytes ")]
    return float(line.split()[1]) / MIB


async def has_taken(gateway: RunningGateway, mib: int) -> bool:
    return await taken_mib(gateway) >= mib


async def test_bodies_that_come_together_take_no_more_memory_than_there_is_for_them(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__BODY_BYTES": str(8 * MIB)})
    async with AsyncExitStack() as stack:
        held = [await sent(gateway, stack, name, 3) for name in ("one", "other")]
        await eventually(lambda: has_taken(gateway, 6))

        late = await sent(gateway, stack, "third", 3)
        refused = await late.connection.read_answer()
        small = await gateway.post(PATH, body=BODY, token=gateway.token(unit_primitives=RIGHTS))
        answered = [await each.end() for each in held]
        again = await (await sent(gateway, stack, "third", 3)).end()

    assert (refused.status, refused.refusal.code, refused.header("connection")) == (503, "overloaded", "close")
    assert 1 <= int(refused.header("retry-after") or 0) <= 5
    assert small.status == 200
    assert [answer.status for answer in (*answered, again)] == [200, 200, 200]
    assert await taken_mib(gateway) == 0
    assert 'torana_requests_shed_total{reason="memory"} 1' in (await gateway.monitoring("/metrics")).text


async def test_one_instance_leaves_some_of_that_memory_to_others(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__BODY_BYTES": str(8 * MIB)})
    async with AsyncExitStack() as stack:
        held = [await sent(gateway, stack, "busy", 2) for _ in range(2)]
        await eventually(lambda: has_taken(gateway, 4))

        more = await (await sent(gateway, stack, "busy", 3)).connection.read_answer()
        other = await (await sent(gateway, stack, "quiet", 3)).end()

        answered = [await each.end() for each in held]

    assert (more.status, other.status) == (503, 200)
    assert [answer.status for answer in answered] == [200, 200]


async def test_a_body_larger_than_that_memory_passes_alone(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__BODY_BYTES": str(MIB)})
    async with AsyncExitStack() as stack:
        large = await sent(gateway, stack, "one", 2)
        await eventually(lambda: has_taken(gateway, 2))

        refused = await (await sent(gateway, stack, "other", 1)).connection.read_answer()

        assert ((await large.end()).status, refused.status) == (200, 503)


async def test_memory_of_bodies_is_free_again_whatever_becomes_of_them(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"AIGW_ADMISSION__BODY_BYTES": str(8 * MIB)})
    async with AsyncExitStack() as stack:
        held = await sent(gateway, stack, "one", 3)
        await eventually(lambda: has_taken(gateway, 3))
        held.connection.writer.transport.abort()

        async def is_free() -> bool:
            return await taken_mib(gateway) == 0

        await eventually(is_free)
