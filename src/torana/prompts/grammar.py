"""What a template may be made of. Everything that is not listed here is refused before it is compiled."""

from collections.abc import Iterator

from jinja2 import nodes

from torana.errors import ToranaError
from torana.prompts.filters import FILTERS, TESTS, form_of, takes

_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const),
    *(nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
    *(nodes.For, nodes.If, nodes.CondExpr, nodes.Assign, nodes.With, nodes.Include),
    *(nodes.Filter, nodes.Keyword, nodes.Test, nodes.Getattr, nodes.Getitem, nodes.Slice),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Neg, nodes.Pos),
)
_DISPLAYS = (nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair)
_MAX_NUMBER = 2**63
_NO_NAMES = ("self", "super", "caller", "varargs", "kwargs")
_SIGNS = {"Mul": "*", "Pow": "**", "Mod": "%", "Div": "/", "FloorDiv": "//", "Call": "(…)", "Scope": "autoescape"}
_EXPECTED = "expected look-ups, conditions, loops, literal includes and filters"


class BadTemplate(ToranaError):
    """A template that is not allowed or no template at all. `line` counts from 1 within its text."""

    def __init__(self, line: int, what: str, expected: str) -> None:
        super().__init__(f"{line}: {what}, {expected}")
        self.line = line
        self.what = what
        self.expected = expected


def check_tree(tree: nodes.Template) -> None:
    """Raises BadTemplate for the first thing that is not allowed."""
    joined = {id(each.node) for each in tree.find_all(nodes.Filter) if each.name == "join"}
    for node in _nodes_of(tree):
        fault = _fault_of(node)
        if fault is None and isinstance(node, _DISPLAYS) and id(node) not in joined and _holds_values(node):
            # Lists of lists of lists, doubled at each step, would outgrow every meter in a few lines.
            fault = "a list of values is not allowed", "expected a list of literals, or one that is joined at once"
        if fault is not None:
            # Jinja gives none to what stands around an `autoescape`.
            raise BadTemplate(next(each.lineno for each in _nodes_of(node) if each.lineno is not None), *fault)


def _nodes_of(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _nodes_of(child)


def _fault_of(node: nodes.Node) -> tuple[str, str] | None:
    """What is wrong with `node` itself, and what is expected; None if it is fine."""
    match node:
        case _ if not isinstance(node, _ALLOWED):
            kind = type(node).__name__
            return f"`{_SIGNS.get(kind, kind.lower())}` is not allowed", _EXPECTED
        case nodes.Filter(name=name) if name not in FILTERS or node.node is None:
            return f"filter `{name}` is not allowed", f"expected one of {', '.join(sorted(FILTERS))}"
        case nodes.Filter() | nodes.Test() if node.dyn_args is not None or node.dyn_kwargs is not None:
            return "`*` in arguments is not allowed", "expected them one by one"
        case nodes.Filter(name=name) if not takes(name, len(node.args), [str(each.key) for each in node.kwargs]):
            return f"filter `{name}` takes no such arguments", f"expected `{form_of(name)}`"
        case nodes.Test(name=name) if name not in TESTS:
            return f"test `{name}` is not allowed", f"expected one of {', '.join(sorted(TESTS))}"
        case nodes.Name(name=name) if name in _NO_NAMES or name.startswith("_"):
            return f"name `{name}` is not allowed", "expected the name of an input"
        case nodes.Getattr(attr=name) | nodes.Getitem(arg=nodes.Const(value=str(name))) if name.startswith("_"):
            return f"member `{name}` is not allowed", "expected a name that begins with a letter"
        case nodes.For(recursive=True):
            return "a recursive loop is not allowed", "expected a plain loop"
        case nodes.Const(value=int() | float() as value) if not -_MAX_NUMBER < value < _MAX_NUMBER:
            return "a number that large is not allowed", "expected a smaller one"
        case nodes.Slice(step=step) if step is not None:
            return "a slice with a step is not allowed", "expected [start:end]"
        case nodes.Include(with_context=False):
            return "`without context` is not allowed", "expected a plain include"
        case nodes.Include(template=name) if not (isinstance(name, nodes.Const) and isinstance(name.value, str)):
            return "include by a computed name is not allowed", "expected {% include 'a/b/1.0.0.jinja' %}"
    return None


def _holds_values(node: nodes.Node) -> bool:
    """A list that holds anything but literals, and is no target such as `a, b` of a loop."""
    if getattr(node, "ctx", "load") == "store":
        return False
    return any(not isinstance(child, (nodes.Const, *_DISPLAYS)) for child in node.iter_child_nodes())
