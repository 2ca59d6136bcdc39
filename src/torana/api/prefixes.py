"""Where every route answers beside the root: under `/ai`, and under AIGW_ROOT_PATH (contract 0)."""


class Prefixes:
    def __init__(self, root_path: str) -> None:
        names = {prefix.strip("/") for prefix in ("ai", root_path)} - {""}
        # The longer one may lie below the other.
        self._prefixes = tuple(f"/{name}/" for name in sorted(names, key=len, reverse=True))

    def strip(self, path: str) -> str:
        """The path as routes have it; one without a prefix stays as it is."""
        for prefix in self._prefixes:
            if path.startswith(prefix):
                return path[len(prefix) - 1 :]
        return path
