"""POST /v1/search/gitlab-docs over an index of ours, and its readiness (contract 12.1, checklist H1)."""

import copy
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

from torana.environment import load_settings
from torana.errors import BadSetting
from torana.search.build import build_index
from torana.search.pages import Page, Section
from torana.search.release import Release

PATH = "/v1/search/gitlab-docs"
BASE = "https://docs.example.com"
FALLBACK = "AIGW_VERTEX_SEARCH__FALLBACK_DATASTORE_VERSION"
SELF_HOSTED = {"AIGW_CUSTOM_MODELS__ENABLED": "true"}
WORDS_IN_ALL = int(8_000 / 1.4)


def page(path: str, text: str) -> Page:
    return Page(path=path, title="Runners", md5sum="0123456789abcdef" * 2, sections=(Section("Top > Sub", text),))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Versions 17.11, 18.6 and 18.10; each says which it is."""
    file = tmp_path / "docs.db"
    for release in (Release(18, 6), Release(18, 10), Release(17, 11)):
        build_index([page("ci/index.md", f"runners of {release}")], release, file, BASE)
    return file


def body(version: str = "18.6.1-ee", query: str = "How do runners work?", **payload: Any) -> dict[str, Any]:
    metadata = {"source": "GitLab EE", "version": version}
    return {"type": "search", "metadata": metadata, "payload": {"query": query, **payload}}


async def ask(gateway: RunningGateway, asked: Any, scopes: tuple[str, ...] = ("documentation_search",)) -> Answer:
    return await gateway.post(PATH, json=asked, token=gateway.token(unit_primitives=scopes))


async def found(gateway: RunningGateway, asked: Any) -> list[str]:
    answer = await ask(gateway, asked)
    assert answer.status == 200, answer
    return [result["content"] for result in answer.json()["response"]["results"]]


def index(file: Path | str, **env: str) -> dict[str, str]:
    return {"AIGW_DOCS_SEARCH__INDEX": str(file), **env}


# --- Answers ---


async def test_an_answer_has_the_shape_that_instances_read(
    start_gateway: StartGateway, file: Path, clock: HandClock
) -> None:
    gateway = await start_gateway(env=index(file), clock=clock)

    answer = await ask(gateway, body())

    assert answer.header("content-type") == "application/json"
    assert answer.json() == {
        "response": {
            "results": [
                {
                    "id": "doc1",
                    "content": "runners of 18.6",
                    "metadata": {
                        "title": "Runners",
                        "heading": "Top > Sub",
                        "source": "ci/index.md",
                        "source_url": f"{BASE}/ci/",
                        "md5sum": "0123456789abcdef" * 2,
                    },
                }
            ]
        },
        "metadata": {"provider": "sqlite", "timestamp": int(clock.now())},
    }
    assert gateway.provider.requests == []


@pytest.mark.parametrize(
    ("version", "fallback", "results"),
    [
        ("18.6.1-ee", "", ["runners of 18.6"]),
        ("17.11.0-pre", "18.6", ["runners of 17.11"]),
        ("18.10", "", ["runners of 18.10"]),
        ("18.1", "18.6", ["runners of 18.6"]),
        ("unknown", "18.6", ["runners of 18.6"]),
        ("", "18.6", ["runners of 18.6"]),
        ("18.1", "", None),
        ("18.1", "18.2", None),
        ("", "", None),
    ],
)
async def test_the_instances_version_is_searched_else_the_fallback(
    start_gateway: StartGateway, file: Path, version: str, fallback: str, results: list[str] | None
) -> None:
    gateway = await start_gateway(env=index(file, **{FALLBACK: fallback}))

    if results is not None:
        assert await found(gateway, body(version)) == results
        return
    answer = await ask(gateway, body(version))
    assert (answer.status, answer.json()["detail"]) == (400, "Data store not found.")
    assert answer.refusal.code == "docs_release_missing"


async def test_without_an_index_there_is_no_data_store(start_gateway: StartGateway, tmp_path: Path) -> None:
    for env in ({}, index(tmp_path / "none.db")):
        gateway = await start_gateway(env=env)
        answer = await ask(gateway, body())
        assert (answer.status, answer.json()["detail"]) == (400, "Data store not found.")


async def test_a_self_hosted_gateway_searches_its_highest_version(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_gateway(env=index(file, **SELF_HOSTED, **{FALLBACK: "17.11"}))

    for version in ("18.6", "17.11", "nonsense"):
        assert await found(gateway, body(version)) == ["runners of 18.10"]


async def test_a_self_hosted_gateway_without_an_index_finds_nothing(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    for env in (SELF_HOSTED, index(tmp_path / "none.db", **SELF_HOSTED)):
        gateway = await start_gateway(env=env)
        assert await found(gateway, body()) == []


async def test_a_version_that_is_added_serves_without_a_new_start(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_gateway(env=index(file))
    assert (await ask(gateway, body("19.0"))).status == 400

    build_index([page("a.md", "runners of 19.0")], Release(19, 0), file, BASE)

    assert await found(gateway, body("19.0")) == ["runners of 19.0"]


@pytest.mark.parametrize("name", ["broken.db", "x" * 300])
async def test_an_index_that_cannot_be_read_is_a_failure_of_ours(
    start_gateway: StartGateway, tmp_path: Path, name: str
) -> None:
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    gateway = await start_gateway(env=index(tmp_path / name))

    answer = await ask(gateway, body(query="a secret question"))

    assert (answer.status, answer.json()["detail"]) == (500, "Internal Server Error")
    assert answer.refusal.code == "docs_search_failed"
    assert "secret" not in answer.text + str(gateway.log.lines)


@pytest.mark.parametrize(
    "query", ['" OR 1', "title:x AND (", "runners\0*", "x" * 400_000, "", "?", "'; DROP TABLE releases", "\U0001f993"]
)
async def test_any_question_is_answered(start_gateway: StartGateway, file: Path, query: str) -> None:
    gateway = await start_gateway(env=index(file))

    assert (await ask(gateway, body(query=query))).status == 200
    assert await found(gateway, body()) == ["runners of 18.6"]


async def test_a_lone_surrogate_is_no_fault(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_gateway(env=index(file))
    raw = b'{"type":"search","metadata":{"source":"x","version":"18.6"},"payload":{"query":"runners \\ud800"}}'

    answer = await gateway.post(PATH, body=raw, token=gateway.token(unit_primitives=["documentation_search"]))

    assert answer.status == 200


@pytest.mark.parametrize(("asked", "count"), [({}, 4), ({"page_size": 1}, 1), ({"page_size": 20}, 20)])
async def test_the_page_size_bounds_the_results(
    start_gateway: StartGateway, tmp_path: Path, asked: dict[str, int], count: int
) -> None:
    file = tmp_path / "docs.db"
    build_index([page(f"{number}.md", f"runners {number}") for number in range(25)], Release(18, 6), file, BASE)
    gateway = await start_gateway(env=index(file))

    assert len(await found(gateway, body(**asked))) == count


async def test_all_results_together_stay_within_the_tokens(start_gateway: StartGateway, tmp_path: Path) -> None:
    file = tmp_path / "docs.db"
    text = "runners " * 400
    build_index([page(f"{number}.md", text) for number in range(20)], Release(18, 6), file, BASE)
    gateway = await start_gateway(env=index(file))

    results = await found(gateway, body(page_size=20))

    assert sum(len(text.split()) for text in results) == WORDS_IN_ALL
    assert len(results) == 15


# --- Bodies and rights ---


async def test_it_needs_its_unit_primitive(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_gateway(env=index(file))

    answer = await ask(gateway, body(), scopes=("duo_chat",))

    assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to search documentations")


@pytest.mark.parametrize(
    ("path", "good", "bad", "kind"),
    [
        (("type",), "t" * 100, "t" * 101, "string_too_long"),
        (("metadata", "source"), "s" * 100, "s" * 101, "string_too_long"),
        (("metadata", "version"), "18.6" + "v" * 96, "18.6" + "v" * 97, "string_too_long"),
        (("payload", "query"), "q" * 400_000, "q" * 400_001, "string_too_long"),
        (("payload", "page_size"), 1, 0, "value_error"),
        (("payload", "page_size"), 20, 21, "value_error"),
        (("payload", "page_size"), "7", "seven", "int_type"),
        (("payload", "page_size"), None, [4], "int_type"),
        (("type",), "t", ..., "missing"),
        (("metadata",), {"source": "s", "version": "18.6"}, ..., "missing"),
        (("metadata",), {"source": "s", "version": "18.6"}, "x", "dict_type"),
        (("metadata", "source"), "s", ..., "missing"),
        (("metadata", "version"), "18.6", ..., "missing"),
        (("payload",), {"query": "x"}, ..., "missing"),
        (("payload", "query"), "x", ..., "missing"),
        (("payload", "query"), "x", 7, "string_type"),
    ],
)
async def test_each_limit_holds_alone_and_before_permission(
    start_gateway: StartGateway, file: Path, path: tuple[str, ...], good: Any, bad: Any, kind: str
) -> None:
    gateway = await start_gateway(env=index(file))
    answers = []
    for value in (good, bad):
        asked = copy.deepcopy(body(novel="ignored"))
        members = asked if len(path) == 1 else asked[path[0]]
        members[path[-1]] = value
        if value is ...:
            del members[path[-1]]
        answers.append(await ask(gateway, asked, scopes=("documentation_search",) if value is good else ()))

    assert answers[0].status == 200
    (row,) = answers[1].json()["detail"]
    assert (answers[1].status, row["loc"], row["type"]) == (422, ["body", *path], kind)


# --- Readiness and settings ---


async def readiness(gateway: RunningGateway) -> tuple[int, bool, str]:
    row = (await gateway.monitoring("/readyz")).json()["checks"]["docs_search"]
    return (await gateway.get("/monitoring/ready")).status, row["ok"], row["detail"]


async def test_readiness_names_the_versions_of_the_index(start_gateway: StartGateway, file: Path) -> None:
    assert await readiness(await start_gateway(env=index(file))) == (200, True, "17.11, 18.6, 18.10")


async def test_an_index_is_not_needed_to_be_ready(start_gateway: StartGateway, tmp_path: Path) -> None:
    unset = await readiness(await start_gateway())
    self_hosted = await readiness(await start_gateway(env=index(tmp_path / "none.db", **SELF_HOSTED)))

    assert (unset[:2], self_hosted[:2]) == ((200, True), (200, True))


async def test_an_index_that_is_named_must_be_readable(start_gateway: StartGateway, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("no index")

    for path in (broken, tmp_path / "none.db", tmp_path / ("x" * 300)):
        status, ok, detail = await readiness(await start_gateway(env=index(path)))
        assert (status, ok) == (503, False)
        assert "AIGW_DOCS_SEARCH__INDEX" in detail


async def test_an_index_that_was_ready_is_not_looked_at_again(start_gateway: StartGateway, file: Path) -> None:
    gateway = await start_gateway(env=index(file))
    assert (await readiness(gateway))[0] == 200

    file.unlink()  # noqa: ASYNC240 nothing else runs meanwhile

    assert (await readiness(gateway))[0] == 200


@pytest.mark.parametrize("text", ["18", "latest", "18.6.1", "18.x"])
def test_a_fallback_that_is_no_version_stops_the_start(text: str) -> None:
    with pytest.raises(BadSetting, match=f"{FALLBACK}.*expected X.Y"):
        load_settings({FALLBACK: text})
    assert load_settings({FALLBACK: "18.6"}).search.fallback_release == "18.6"
