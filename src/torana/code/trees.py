"""Syntax trees, for as long as there is patience with them.

tree-sitter is an extra of the wheel and imported on first use. Parsing holds the interpreter lock, so a thread would
not free the event loop. A tree of a few thousand letters takes about 2 ms; but with letters that were chosen for it,
a grammar takes minutes, most of them in one last step that nothing can end. Such a source is slow from its beginning
on, though, and is given up there.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tree_sitter import Parser, Tree

PATIENCE_S = 0.1
"""CPU time for all the trees of one cursor, whoever waits for the CPU meanwhile."""
START_S, BYTE_S = 0.002, 0.000_002_5
"""What one tree may have cost where its parser has come to a byte: several times what code costs there."""
MAX_SOURCE_CHARS = 12_000
UNSAFE = frozenset({"kotlin", "markdown", "perl", "yaml"})
"""Grammars whose scanners never come back from some code (Perl's from `s#a` at the end of a file), where no callback
reaches them, or end the whole process: the others from a thousand list marks, keys or quotes in each other."""


@dataclass(slots=True)
class Patience:
    """What is left of it. Where none is, there are no more trees."""

    left_s: float = PATIENCE_S


def make_tree(grammar: str, source: str, patience: Patience) -> "Tree | None":
    """None where there is no such grammar, or no patience left."""
    parser = _find_parser(grammar)
    if parser is None or patience.left_s <= 0 or len(source) > MAX_SOURCE_CHARS:
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
        patience.left_s = 0.0
    patience.left_s -= time.thread_time() - begun
    return tree


@lru_cache(maxsize=64)
def _find_parser(grammar: str) -> "Parser | None":
    if grammar in UNSAFE:
        return None
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError:
        return None
    try:
        return get_parser(cast(Any, grammar))
    except LookupError:
        return None
