"""The OpenAPI document and its page, where the operator switched them on. Works without any network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.api.openapi import openapi_document
from torana.api.prefixes import Prefixes
from torana.api.route_table import RouteTable
from torana.caller import Permit
from torana.errors import BadSetting
from torana.settings import Settings

ASSETS = Path(__file__).parent / "assets" / "swagger-ui"

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>torana API</title><link rel="icon" href="data:,"><style>{style}</style></head>
<body>
<div id="page"></div>
<script>{script}</script>
<script>
const spec = {document};
const page = {paths}.find((path) => location.pathname.endsWith(path)) || "";
spec.servers = [{{url: location.pathname.slice(0, location.pathname.length - page.length) || "/"}}];
SwaggerUIBundle({{spec, dom_id: "#page", validatorUrl: null}});
</script>
</body>
</html>
"""
"""Routes are tried out below the prefix that the page was asked for under: a proxy may pass on nothing else."""

_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


class DocsEndpoints:
    """At the paths of DOCS_URL, OPENAPI_URL and REDOC_URL; in development the first two are on by default."""

    def __init__(self, settings: Settings) -> None:
        serve = settings.serve
        is_on = settings.is_development
        # Named with a prefix, they answer there as well.
        strip = Prefixes(serve.root_path).strip
        page, redoc = strip(_path(serve.docs_url, "/docs" if is_on else "")), strip(_path(serve.redoc_url, ""))
        self.pages = {page, redoc} - {""}
        self.document_path = strip(_path(serve.openapi_url, "/openapi.json" if is_on else ""))
        self._named = {
            "AIGW_FASTAPI__DOCS_URL": page,
            "AIGW_FASTAPI__REDOC_URL": redoc,
            "AIGW_FASTAPI__OPENAPI_URL": self.document_path,
        }
        self._described: Sequence[Route] = ()
        self._page = b""

    def routes(self, described: Sequence[Route]) -> list[Route]:
        """Rows for the switched-on paths; `described` is what the document tells about.

        Raises BadSetting where something else answers at one of them: only one of the two would.
        """
        self._described = described
        table = RouteTable(described)
        for name, path in self._named.items():
            route, _, other_methods = table.find("GET", path)
            is_taken = route is not None or bool(other_methods)
            if is_taken or (path == self.document_path and path in self.pages):
                raise BadSetting(name, f"{path!r} is the path of another answer", "expected one where nothing else is")
        rows = [self._row(path, self.show_page) for path in sorted(self.pages)]
        return [*rows, self._row(self.document_path, self.show_document)] if self.document_path else rows

    def _row(self, path: str, handle: Any) -> Route:
        return Route(path=path, methods=("GET", "HEAD"), handle=handle, body="none", is_open=True)

    async def show_document(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        return json_reply(openapi_document(self._described))

    async def show_page(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        # Kept, because putting 2 MB together anew would hold everybody else up for some 30 ms.
        self._page = self._page or self._write_page()
        return Reply(200, self._page, [*_HEADERS])

    def _write_page(self) -> bytes:
        document = msgspec.json.encode(openapi_document(self._described)).decode()
        return _PAGE.format(
            style=(ASSETS / "swagger-ui.css").read_text("utf-8"),
            # Inside a page, a script ends at the first such tag, wherever it stands.
            script=(ASSETS / "swagger-ui-bundle.js").read_text("utf-8").replace("</script", "<\\/script"),
            document=document.replace("</", "<\\/"),
            paths=msgspec.json.encode(sorted(self.pages)).decode().replace("</", "<\\/"),
        ).encode()


def _path(value: str, default: str) -> str:
    """A configured path; `null` switches off."""
    if value == "null":
        return ""
    return value or default
