"""What a base install brings in: prints the tree, and fails where it grows beyond what was promised.

Usage, in the environment of `make setup`: python tools/dependencies.py
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

MOST_DIRECT = 12
MOST_IN_ALL = 36
LISTED_PTH = {"torana.pth", "distutils-precedence.pth"}
"""The checkout itself, and what `python -m venv` brings along; any other file of this kind runs at every start."""

ROOT = Path(__file__).parents[1]
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def name_of(requirement: str) -> str:
    found = _NAME.match(requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def read_lock(path: Path) -> tuple[set[str], list[str]]:
    """The packages that are pinned, and what is wrong with the lock."""
    text = path.read_text()
    entries = [entry for entry in re.split(r"(?<!\\)\n(?=\S)", text) if entry and not entry.startswith("#")]
    wrong = [f"{path.name}: {entry.split()[0]} has no hash" for entry in entries if "--hash=sha256:" not in entry]
    wrong += [f"{path.name}: {entry.split()[0]} is not pinned" for entry in entries if "==" not in entry.split()[0]]
    if "://" in text or "--index" in text or "--find-links" in text:
        wrong.append(f"{path.name}: names an index or an address")
    return {name_of(entry) for entry in entries}, wrong


def tree(asked: Iterable[str], locked: set[str], depth: int = 0) -> list[str]:
    """One line for each package of `asked`, what it needs below it, as far as the lock has it."""
    lines = []
    for requirement in sorted(asked):
        name, extras = name_of(requirement), re.findall(r"\[(.+?)\]", requirement)
        lines.append("  " * depth + name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            needed = []
        wanted = [text for text in needed if "extra ==" not in text or any(f'"{extra}"' in text for extra in extras)]
        lines += tree([text for text in wanted if name_of(text) in locked], locked, depth + 1)
    return lines


def main(most_direct: int = MOST_DIRECT, most_in_all: int = MOST_IN_ALL) -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # The grammars are in the runtime lock; the build backend is in it too, and nobody imports it.
    asked = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["code-context"]
    direct = {name_of(text) for text in asked}
    wrong = []
    for path in sorted(ROOT.glob("requirements*.lock")):
        wrong += read_lock(path)[1]
    locked = read_lock(ROOT / "requirements.lock")[0] - {"flit-core"}
    print("\n".join(tree(asked, locked)))
    print(f"{len(direct)} direct dependencies of at most {most_direct}, {len(locked)} in all of at most {most_in_all}")
    if len(direct) > most_direct or len(locked) > most_in_all:
        wrong.append("the base install has grown: leave one out, or change the promise")
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    unlisted = {path.name for path in site.glob("*.pth")} - LISTED_PTH
    wrong += [f"{name}: runs at every start and is not listed" for name in sorted(unlisted)]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
