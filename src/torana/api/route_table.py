"""The one list of routes, looked up by method and path."""

from collections.abc import Sequence

from torana.api.dry_run import Rehearse
from torana.api.exchange import Route
from torana.limits.limits import Limits

REMEMBERED, REMEMBERED_CHARS = 1024, 256
"""Paths that are remembered with their routes, and how long they may be."""


class RouteTable:
    """The one list of routes, looked up by path. Refuses a route that declares no policy."""

    def __init__(self, routes: Sequence[Route], limits: Limits | None = None, rehearse: Rehearse | None = None) -> None:
        self.routes = tuple(routes)
        self.limits = limits
        """Of the same catalogue; None: nothing is limited."""
        self.rehearse = rehearse
        """What is decided about a request, instead of its answer; of the same catalogue."""
        self.paths = tuple(route.path for route in routes)
        self._exact: dict[str, list[Route]] = {}
        self._probes: dict[str, Route] = {}
        """Clients ask these for a sign of life with HEAD; with any other method nothing is there."""
        self._tails: list[tuple[str, Route]] = []
        for route in routes:
            if route.policy is None and not route.is_open:
                raise RuntimeError(f"{route.path} declares no policy")
            if route.methods == ("HEAD",):
                self._probes[route.path] = route
            elif route.path.endswith("{tail}"):
                self._tails.append((route.path.removesuffix("{tail}"), route))
            else:
                self._exact.setdefault(route.path, []).append(route)
        self._found: dict[tuple[str, str], tuple[Route, str, tuple[str, ...]]] = {}
        """Method and path → what was found; paths may be of a client's making."""
        # The longest prefix is the most particular one.
        self._tails.sort(key=lambda item: -len(item[0]))

    @property
    def is_limited(self) -> bool:
        """The operator has set limits."""
        return self.limits is not None and bool(self.limits.rules)

    def is_open(self, path: str) -> bool:
        """True for paths that need no token; with another method they answer 405, not 401."""
        return any(row.is_open for row in self._exact.get(path, ()))

    def find(self, method: str, path: str) -> tuple[Route | None, str, tuple[str, ...]]:
        """(route, tail, where there is none: the methods that this path answers)."""
        known = self._found.get((method, path))
        if known is not None:
            return known
        found = self._look_up(method, path)
        if found[0] is not None and len(path) <= REMEMBERED_CHARS:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            self._found[method, path] = found[0], found[1], ()
        return found

    def _look_up(self, method: str, path: str) -> tuple[Route | None, str, tuple[str, ...]]:
        if method == "HEAD" and path in self._probes:
            return self._probes[path], "", ()
        other_methods: tuple[str, ...] = ()
        rows = self._exact.get(path)
        if rows is not None:
            for route in rows:
                if method in route.methods:
                    return route, "", ()
                other_methods += route.methods
            return None, "", other_methods
        for prefix, route in self._tails:
            if len(path) > len(prefix) and path.startswith(prefix):
                if method in route.methods:
                    return route, path[len(prefix) :], ()
                other_methods += route.methods
        return None, "", other_methods
