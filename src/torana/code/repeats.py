"""Answers that say again what already stands around the cursor; the repeated part goes."""

import re
from collections import defaultdict

from torana.code.syntax import adds_errors
from torana.code.trees import Trees

LARGE_LINES = 3
"""So many telling lines in a row make a block whose repetition is no chance."""

_MAX_LINES = 1_000
_MAX_LOOP_LINES = 500
"""Looking for loops costs the square of it: about 10 ms."""
_MAX_ROUNDS = 8
"""Repetitions that are taken off one end. What has more is no suggestion, and each costs a look at the whole text."""
_MAX_PLACES = 50
_MAX_LINES_ABOVE = 100
_MAX_DEPTH = 200
_BEGUN_WORD = re.compile(r"(?<![#\\\w])[^\W\d]\w+\Z")
_TELLING = re.compile(r"\w")
# Lines that close something: the same text may close an inner block and an outer one.
_CLOSER = re.compile(r"\W*|end\W*|fi|done|esac|endif|</.*")
_QUOTES = ('"', "'")
_OPENER = re.compile(r"[:{(\[]\s*\Z")


def drop_repeated_start(text: str, prefix: str, *, is_indented: bool = False) -> str:
    """`text` without a beginning that repeats the prefix's last line, its last lines or its last word.

    Where the cursor stands at the start of a line, that is the last line with something on it, and the
    indentation that is already there: once, for a text may be indented further.

    is_indented  the text begins behind that indentation
    """
    shorter = _without_lines_above(text, prefix)
    is_indented, text = is_indented or shorter != text, shorter
    above, _, typed = prefix.rpartition("\n")
    line, line_above = typed.lstrip(), above.rstrip().rpartition("\n")[2]
    for _ in range(_MAX_ROUNDS):
        shorter = _without_typed(text, line) if line else _without_line_above(text, line_above)
        if shorter == text:
            break
        text = shorter
    if not line:
        return text if is_indented else _without_indent(text, typed, line_above)
    word = _BEGUN_WORD.search(typed)
    return text.removeprefix(word[0]) if word else text


def drop_repeated_end(text: str, prefix: str, suffix: str, grammar: str, trees: Trees | None = None) -> str:
    """`text` without an end that repeats the suffix's first line, or its first lines.

    Right after the cursor, that is the rest of the line; otherwise the next line with something on it.
    A line that only closes a block is kept where the code needs it there as well, unless it is the very same,
    indentation included: then it is the one that stands there.
    """
    trees = trees or Trees()
    for _ in range(_MAX_ROUNDS):
        shorter = _without_rest_of_line(text, suffix)
        if shorter is None:
            shorter = _without_lines_below(text, prefix, suffix)
        if shorter is None:
            shorter = _without_begun_line(text, suffix)
        if shorter is None:
            break
        only_closes = all(_CLOSER.fullmatch(line.strip()) for line in text[len(shorter) :].splitlines())
        if only_closes and adds_errors(prefix, text, shorter, suffix, grammar, trees):
            shorter = _without_same_line(text, suffix)
            if shorter is None:
                break
        text = shorter
    return text


def drop_repeated_blocks(text: str, prefix: str) -> str:
    """`text` without runs of lines that stand in the prefix already, LARGE_LINES telling ones at least.

    Only where they stand in the same block again: a second test may well prepare what the first one did.
    """
    lines = text.splitlines(keepends=True)
    if not LARGE_LINES <= len(lines) <= _MAX_LINES:
        return text
    # Mostly the two have next to nothing in common, and two sets tell.
    bare = list(map(str.strip, lines))
    written = prefix.splitlines()[-_MAX_LINES:]
    above = list(map(str.strip, written))
    common = set(above).intersection(bare)
    if not common or sum(map(common.__contains__, bare)) < LARGE_LINES:
        return text
    places = defaultdict[str, list[int]](list)
    for number, line in enumerate(above):
        if line in common and _TELLING.search(line) and len(places[line]) < _MAX_PLACES:
            places[line].append(number)
    typed = prefix.rpartition("\n")[2]
    owners = _owners(written, lines, typed)
    originals: dict[int, int] = {}
    kept: list[str] = []
    number = 0
    # The first line belongs to the one that the cursor stands in.
    if lines and typed.strip():
        kept, number = lines[:1], 1
    while number < len(lines):
        here = len(above) + number
        owner = originals.get(owners[here], owners[here])
        runs = [
            (_run(bare, number, above, place), place)
            for place in places.get(bare[number], ())
            if owners[place] == owner
        ]
        longest, place = max(runs, default=(0, 0))
        if _count_telling(lines[number : number + longest]) >= LARGE_LINES:
            originals.update((here + more, place + more) for more in range(longest))
            number += longest
        else:
            kept.append(lines[number])
            number += 1
    return "".join(kept)


def drop_loops(text: str) -> str:
    """`text` with a block that comes several times in a row, as models in a loop write it, only once."""
    lines = text.splitlines(keepends=True)
    if len(lines) > _MAX_LOOP_LINES:
        return text
    # Lines that are long and differ at their ends would be compared letter by letter, again and again.
    known: dict[str, int] = {}
    bare = [known.setdefault(line.strip(), len(known)) for line in lines]
    is_telling = [_TELLING.search(line) is not None for line in lines]
    number = 0
    while number < len(lines):
        telling = sum(is_telling[number : number + LARGE_LINES - 1])
        for again in range(number + LARGE_LINES, (len(lines) + number) // 2 + 1):
            telling += is_telling[again - 1]
            end = 2 * again - number
            if telling >= LARGE_LINES and bare[number] == bare[again] and bare[number:again] == bare[again:end]:
                del lines[again:end], bare[again:end], is_telling[again:end]
                number -= 1  # the same block may come a third time
                break
        number += 1
    return "".join(lines)


def _without_lines_above(text: str, prefix: str) -> str:
    """`text` without a beginning that is the end of the prefix, from the start of one of its lines on."""
    begun = text.lstrip()
    if "\r" not in begun:
        prefix = prefix.replace("\r\n", "\n")
    first = begun[: begun.find("\n") + 1]
    if not first or first not in prefix:  # nearly always
        return text
    longest, depth, start = 0, 0, prefix.rfind("\n")
    for _ in range(_MAX_LINES_ABOVE):
        if start < 0 or len(prefix) - start > 2 * len(begun):
            break
        start = prefix.rfind("\n", 0, start)
        again = prefix[start + 1 :].lstrip()
        if len(again) > longest and _says(again) and begun.startswith(again):
            longest, depth = len(again), len(prefix) - start - 1 - len(again)
    if not longest:
        return text
    rest = begun[longest:]
    if prefix[prefix.rfind("\n") + 1 :].strip():
        return rest
    # Where they come again with more indentation than they have, what is behind them has as much more.
    blank = text[: len(text) - len(begun)]
    deeper = min(len(blank) - blank.rfind("\n") - 1 - depth, _MAX_DEPTH)
    return re.sub(rf"^[ \t]{{1,{deeper}}}", "", rest, flags=re.MULTILINE) if deeper > 0 else rest


def _says(lines: str) -> bool:
    """Nobody writes them twice in a row: they have words, or close one thing and open another, as `) {`."""
    return bool(_TELLING.search(lines) or (lines[0] in ")]}" and _OPENER.search(lines)))


def _without_typed(text: str, line: str) -> str:
    # Line ends are not skipped: after `}`, a next line of `}` closes another block.
    start = text.lstrip(" \t")
    if line in _QUOTES and text.startswith(2 * line):
        return text  # a docstring begins with three of them
    if start.startswith(line):
        return start[len(line) :]
    if start.startswith(bare := line.rstrip()) and start[len(bare) : len(bare) + 1].strip() == "":
        return start[len(bare) :].lstrip(" \t")
    # The whole line once more, below itself.
    first, end, rest = start.lstrip("\r\n \t").partition("\n")
    is_again = _TELLING.search(line) and start[:1] in ("\r", "\n") and first.strip() == line.strip()
    return end + rest if is_again else text


def _without_line_above(text: str, line: str) -> str:
    first, _, rest = text.lstrip("\r\n").partition("\n")
    return rest if _TELLING.search(line) and first.strip() == line.strip() else text


def _without_indent(text: str, indent: str, line_above: str) -> str:
    depth = _depth(line_above)
    # Under an opened block, more indentation than the cursor has is meant.
    is_deeper = _OPENER.search(line_above) and _depth(text) <= depth and len(indent) <= depth
    return text if is_deeper else text.removeprefix(indent)


def _without_rest_of_line(text: str, suffix: str) -> str | None:
    rest = suffix.partition("\n")[0].rstrip()
    start = text.rstrip()
    return start[: -len(rest)] if rest and start.endswith(rest) else None


def _without_lines_below(text: str, prefix: str, suffix: str) -> str | None:
    told = text.rstrip()
    if suffix.partition("\n")[0].strip() or told[told.rfind("\n") + 1 :].strip() not in suffix:
        return None
    below = [line for line in map(str.strip, suffix.splitlines()[:_MAX_LINES]) if line]
    # Told by the last of the text's lines at once; the others are looked at only then.
    last = next(reversed(told[told.rfind("\n") + 1 :].splitlines()), "").strip()
    counts = [count for count, line in enumerate(below, 1) if line == last]
    if not counts:
        return None
    lines = text.splitlines(keepends=True)
    # The first line of the text is a line of its own only where the cursor's line is empty before it.
    own = 1 if prefix[prefix.rfind("\n") + 1 :].strip() else 0
    bare: list[str] = []
    """The last of them that have text, from the end."""
    at: list[int] = []
    for number in range(len(lines) - 1, own - 1, -1):
        if line := lines[number].strip():
            bare.append(line)
            at.append(number)
            if len(bare) == counts[-1]:
                break
    for count in reversed(counts):
        if count <= len(bare) and bare[count - 1 :: -1] == below[:count]:
            return "".join(lines[: at[count - 1]]).rstrip()
    return None


def _without_begun_line(text: str, suffix: str) -> str | None:
    """`text` without its last line, where that only closes a block and the suffix's first one begins so: `} else {`."""
    above, _, last = text.rstrip().rpartition("\n")
    if not above or _TELLING.search(last):
        return None
    first = suffix.rfind("\n", 0, len(suffix) - len(suffix.lstrip())) + 1
    return above.rstrip() if suffix.startswith(last, first) else None


def _without_same_line(text: str, suffix: str) -> str | None:
    """`text` without its last line, where that is the suffix's first one to the letter."""
    above, _, last = text.rstrip().rpartition("\n")
    first = next((line.rstrip() for line in suffix.splitlines() if line.strip()), "")
    return above.rstrip() if last == first else None


def _owners(above: list[str], lines: list[str], typed: str) -> list[int]:
    """For each line of both, in a row, the one whose block it stands in, as indentation tells; -1: none."""
    depths = [(_depth(line), bool(line.strip())) for line in (*above, *lines)]
    first, is_telling = depths[len(above)]
    depths[len(above)] = (_depth(typed) if typed.strip() else max(len(typed), first), is_telling)
    owners: list[int] = []
    around: list[tuple[int, int]] = []
    for number, (depth, has_text) in enumerate(depths):
        while has_text and around and around[-1][0] >= depth:
            around.pop()
        owners.append(around[-1][1] if around else -1)
        if has_text:
            around.append((depth, number))
    return owners


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _run(bare: list[str], number: int, above: list[str], place: int) -> int:
    length, most = 0, min(len(bare) - number, len(above) - place)
    while length < most and bare[number + length] == above[place + length]:
        length += 1
    return length


def _count_telling(lines: list[str]) -> int:
    return sum(1 for line in lines if _TELLING.search(line))
