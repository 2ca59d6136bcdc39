"""One model behind several scripted vendors, and a gateway that knows them."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider

from torana.clock import Clock

PATH = "/v1/prompts/chat/explain_code"
CODE = "/v2/code/completions"


class Fleet:
    """`fleet["a"]` is a vendor; `await fleet.ask()` is a call to the model behind which all of them stand."""

    def __init__(self, vendors: Mapping[str, ScriptedProvider], folder: Path) -> None:
        self.vendors = vendors
        self.folder = folder
        self.gateway: RunningGateway

    def __getitem__(self, name: str) -> ScriptedProvider:
        return self.vendors[name]

    @property
    def asked(self) -> dict[str, int]:
        """How many calls each vendor got."""
        return {name: len(vendor.requests) for name, vendor in self.vendors.items()}

    async def ask(self, path: str = PATH, *, token: str = "", stream: bool = False, text: str = "x = 1") -> Answer:
        return await self.gateway.post(
            path, json=self.body(path, stream=stream, text=text), token=token or self.token()
        )

    def body(self, path: str = PATH, *, stream: bool = False, text: str = "x = 1") -> dict[str, Any]:
        if path == CODE:
            file = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""}
            return {"current_file": file, "stream": stream}
        return {"inputs": {"input": "why", "selected_text": text}, "stream": stream}

    def token(self, **claims: Any) -> str:
        return self.gateway.token(unit_primitives=["explain_code", "complete_code"], **claims)

    def write(self, deployments: Sequence[Mapping[str, Any]], *, model: str = "", more: str = "") -> None:
        """The catalogue: rows of vendors, and one model with these deployments; `provider` names the vendor."""
        self.folder.mkdir(exist_ok=True)
        rows = [
            {"name": name, "dialect": "chat_completions", "base_url": vendor.url}
            for name, vendor in self.vendors.items()
        ]
        (self.folder / "providers.yml").write_text(json.dumps(rows))
        listed = [{"model": f"{each['provider']}-1", **each} for each in deployments]
        (self.folder / "models.yml").write_text(
            f"models:\n- {{name: fleet, title: Fleet, deployments: {json.dumps(listed)}{model}}}\n"
            "aliases:\n"
            "- {name: chat_default, models: [fleet]}\n"
            "- {name: completions_default, models: [fleet]}\n" + more
        )


@asynccontextmanager
async def running_fleet(
    start_gateway: Any,
    folder: Path,
    deployments: Sequence[Mapping[str, Any]],
    *,
    env: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    model: str = "",
    more: str = "",
) -> AsyncIterator[Fleet]:
    """A vendor for each `provider` that the deployments name, and a gateway in front.

    model  further members of the model's record, as YAML: `, hedge_after_s: 1`
    more   further text of models.yml
    """
    async with AsyncExitStack() as stack:
        names = dict.fromkeys(each["provider"] for each in deployments)
        vendors = {name: await stack.enter_async_context(ScriptedProvider()) for name in names}
        for name, vendor in vendors.items():
            vendor.answer_with(text=f"This is {name}.")
        fleet = Fleet(vendors, folder)
        fleet.write(deployments, model=model, more=more)
        fleet.gateway = await start_gateway(env={"AIGW_CATALOG": str(folder), **(env or {})}, clock=clock)
        yield fleet
