"""A new catalogue without a restart (interface 8)."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support.gateway import RunningGateway
from tests.support.waiting import eventually

from torana.reload import Reloader

PROMPT = """\
name: Motto
unit_primitives: [duo_chat]
prompt_template:
  user: "{text} {{{{ word }}}}"
"""


def write_prompt(folder: Path, text: str, version: str = "1.0.0") -> Path:
    path = folder / "prompts" / "team" / "motto" / "base" / f"{version}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROMPT.format(text=text))
    return path


async def ask(gateway: RunningGateway) -> int:
    token = gateway.token(unit_primitives=["duo_chat"])
    return (await gateway.post("/v1/prompts/team/motto", json={"inputs": {"word": "w"}}, token=token)).status


def sent_text(gateway: RunningGateway) -> str:
    return str(gateway.provider.requests[-1].json()["messages"])


async def test_a_reload_brings_a_new_prompt(start_gateway: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "overlay"
    folder.mkdir()
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})
    assert await ask(gateway) == 404

    write_prompt(folder, "Say")
    assert await gateway.running.reloader.reload()

    assert await ask(gateway) == 200
    assert "Say w" in sent_text(gateway)


async def test_a_catalogue_with_an_error_is_refused_and_the_old_one_stays(
    start_gateway: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "overlay"
    path = write_prompt(folder, "Say")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})

    path.write_text("name: Motto\nunit_primitive: duo_chat\nprompt_templates:\n  user: hi\n")
    assert not await gateway.running.reloader.reload()

    assert await ask(gateway) == 200
    line = await gateway.log.find(message="reload refused, the old catalogue stays")
    assert "1.0.0.yml:3" in line["problem"]
    assert "config_stale 1" in (await gateway.monitoring("/metrics")).text

    write_prompt(folder, "Tell")
    assert await gateway.running.reloader.reload()
    assert await ask(gateway) == 200
    assert "Tell w" in sent_text(gateway)
    assert "config_stale 0" in (await gateway.monitoring("/metrics")).text


async def test_a_call_under_way_keeps_the_catalogue_it_came_in_with(start_gateway: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "overlay"
    path = write_prompt(folder, "Say")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder)})
    gateway.provider.stall(after_events=4)
    token = gateway.token(unit_primitives=["duo_chat"])
    body = {"inputs": {"word": "w"}, "stream": True}

    async with gateway.stream("/v1/prompts/team/motto", json=body, token=token) as answer:
        path.unlink()
        assert await gateway.running.reloader.reload()
        gateway.provider.release()
        await answer.rest()
        assert answer.is_whole

    assert await ask(gateway) == 404


async def test_a_catalogue_that_cannot_be_built_for_a_fault_of_ours_is_refused_too(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    built: list[str] = []

    def build() -> Callable[[], None]:
        if (tmp_path / "odd").exists():
            raise KeyError("secret")
        return partial(built.append, "swapped")

    (tmp_path / "odd").touch()
    reloader = Reloader(build, gateway.running.parts.metrics, [tmp_path])
    reloader.watch()
    (tmp_path / "more").touch()

    line = await gateway.log.find(message="reload refused, the old catalogue stays")
    assert line["problem"] == "KeyError"
    assert "config_stale 1" in (await gateway.monitoring("/metrics")).text
    (tmp_path / "odd").unlink()
    await gateway.log.find(message="catalogue reloaded")
    assert built == ["swapped"]
    await reloader.aclose()


async def test_however_often_a_reload_is_asked_for_while_one_runs_one_more_follows_it(gateway: RunningGateway) -> None:
    built, may_end = list[int](), threading.Event()

    def build() -> Callable[[], None]:
        built.append(len(built))
        may_end.wait()
        return lambda: None

    async def is_building() -> bool:
        return built != []

    reloader = Reloader(build, gateway.running.parts.metrics, [])
    reloader.request()
    await eventually(is_building)
    for _ in range(10):
        reloader.request()
    await asyncio.sleep(0)  # they stand in line
    may_end.set()

    assert await reloader.reload()  # behind all of them
    assert len(built) == 3


async def test_the_watch_reloads_when_a_file_changes(start_gateway: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "overlay"
    write_prompt(folder, "Say")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(folder), "AIGW_CATALOG_WATCH": "true"})

    write_prompt(folder, "Tell", "1.1.0")
    await gateway.log.find(message="catalogue reloaded")

    assert await ask(gateway) == 200
    assert "Tell w" in sent_text(gateway)
