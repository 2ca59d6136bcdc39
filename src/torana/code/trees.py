"""Syntax trees, for as long as there is patience with them.

tree-sitter is an extra of the wheel and imported on first use. A tree of a few thousand letters takes about 2 ms. But
grammars are programs of others: with code that was chosen for it, one takes seconds, loops for ever or ends its
process, and holds the interpreter lock meanwhile. Most such sources are slow from their beginning on and are given up
here; against the others, trees are made in a process of their own (`code.cleaning`).
"""

import time
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tree_sitter import Parser, Tree

LIBRARY = "tree_sitter_language_pack"
PATIENCE_S = 0.1
"""CPU time for all the trees of one answer, whoever waits for the CPU meanwhile."""
START_S, BYTE_S = 0.002, 0.000_002_5
"""What one tree may have cost where its parser has come to a byte: several times what code costs there."""
MAX_SOURCE_CHARS = 12_000
ENDLESS = frozenset({"perl"})
"""Grammars that never come back from code as people write it: Perl's from `s#a` at the end of a file."""


class Trees:
    """Makes them here and now."""

    def __init__(self) -> None:
        self._left_s = PATIENCE_S

    def make(self, grammar: str, source: str) -> "Tree | None":
        """None where there is no such grammar, or no patience left."""
        parser = _find_parser(grammar)
        if parser is None or self._left_s <= 0 or len(source) > MAX_SOURCE_CHARS:
            return None
        raw = source.encode("utf-8", "replace")
        begun = time.thread_time()
        tree: Tree | None = None
        try:
            # Only where the source is asked for piece by piece does the library ask whether to stop.
            tree = parser.parse(
                lambda at, _point: raw[at:],
                progress_callback=lambda at, _has_error: time.thread_time() - begun > START_S + BYTE_S * at,
            )
        except ValueError:  # stopped
            parser.reset()
            self._left_s = 0.0
        self._left_s -= time.thread_time() - begun
        return tree


class _NoTrees(Trees):
    def make(self, grammar: str, source: str) -> "Tree | None":
        return None


class _TreesElsewhere(Trees):
    def make(self, grammar: str, source: str) -> "Tree | None":
        if may_have_tree(grammar):
            raise TreeWanted
        return None


NO_TREES: Trees = _NoTrees()
TREES_ELSEWHERE: Trees = _TreesElsewhere()
"""Raises TreeWanted where a tree would be made."""


class TreeWanted(Exception):
    """The answer has to be cleaned where trees are made."""


def may_have_tree(grammar: str) -> bool:
    """Whether it is worth while to ask for a tree; a grammar's name may still be unknown to the library."""
    return bool(grammar) and grammar not in ENDLESS and _is_installed()


@cache
def _is_installed() -> bool:
    return find_spec(LIBRARY) is not None


@lru_cache(maxsize=64)
def _find_parser(grammar: str) -> "Parser | None":
    if not may_have_tree(grammar):
        return None
    from tree_sitter_language_pack import get_parser

    try:
        return get_parser(cast(Any, grammar))
    except LookupError:
        return None
