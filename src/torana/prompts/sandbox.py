"""Jinja2 with most of it taken away (contract 8.4): look-ups, conditions, loops, literal includes, filters.

Two fences. Before a template is compiled, its syntax tree may hold only what `grammar.py` lists. While it
renders, a `Meter` counts characters and loop turns, and look-ups reach into mappings and lists alone,
so that no Python attribute is ever read. Values are never parsed: what looks like a template in an
input reaches the model as it came.
"""

import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from jinja2 import DictLoader, StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes, pass_context
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.visitor import NodeTransformer

from torana.errors import Invalid
from torana.prompts.filters import FILTERS, GROWING, TESTS, UNMETERED, TooLarge, largest_result
from torana.prompts.grammar import BadTemplate, check_tree

_LOOP_MEMBERS = ("index", "index0", "revindex", "revindex0", "first", "last", "length")
_METER = " meter"
"""Where the meter hides among the variables: no template can spell a name with a space."""
_WORK_PER_OUTPUT = 4
"""Characters that filters and `+` may make in between, for each one that may come out."""


_PIECES_AT_ONCE = 32
"""A prompt has dozens of pieces. What filters make of them is metered as it is made."""
_RENDER_S = 0.5
"""CPU time of one prompt: what looks at large inputs turn after turn makes nothing, and takes long."""


class Meter:
    """What one rendered prompt may still use up."""

    __slots__ = ("_until", "chars_left", "turns_left", "work_left")

    def __init__(self, max_output_chars: int, max_iterations: int) -> None:
        self.chars_left = max_output_chars
        self.work_left = max_output_chars * _WORK_PER_OUTPUT
        self.turns_left = max_iterations
        self._until = 0.0

    def look_at_the_clock(self) -> None:
        now = time.thread_time()
        if not self._until:
            self._until = now + _RENDER_S  # most prompts never ask
        elif now > self._until:
            raise TooLarge

    def put_out(self, chars: int) -> None:
        self.chars_left -= chars
        if self.chars_left < 0:
            raise TooLarge

    def work(self, chars: int) -> None:
        self.need(chars)
        self.work_left -= chars

    def need(self, chars: int) -> None:
        if chars > self.work_left:
            raise TooLarge

    def turn(self, turns: int) -> None:
        self.turns_left -= turns
        if self.turns_left < 0:
            raise TooLarge


class Missing(StrictUndefined):
    """An absent variable; the error's text is its bare name, which the caller is told."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return str(self._undefined_name)


MAX_INLINED = 100
"""Includes that are put in place at compile time, in one template with all that it includes."""


class Survey(NamedTuple):
    """What static analysis says of one template."""

    reads: frozenset[str]
    """Variables it reads, but for those that are tested with `is defined` or given a default."""
    binds: frozenset[str]
    """Variables it sets itself."""
    includes: tuple[str, ...]


class Sandbox(ImmutableSandboxedEnvironment):
    """Parses, checks and compiles templates; `templates` are what they may include, by name."""

    intercepted_binops = frozenset("+")

    def __init__(self, templates: Mapping[str, str]) -> None:
        self.templates = templates
        super().__init__(
            undefined=Missing, loader=DictLoader(templates), autoescape=False, auto_reload=False, cache_size=-1
        )
        self.globals.clear()
        self.filters = {
            name: function if name in UNMETERED else _metered(name, function) for name, function in FILTERS.items()
        }
        self.filters |= {
            "turns": _turns,
            "turn": _turn,
            "cut": _metered("cut", lambda value, start, stop: value[start:stop]),
        }
        self.tests = {name: JINJA_TESTS[name] for name in TESTS}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        try:
            tree = super()._parse(source, name, filename)
        except TemplateSyntaxError as error:
            wrong = (error.message or "is no template").rstrip(".")
            raise BadTemplate(error.lineno, wrong, "expected a Jinja template") from None
        except RecursionError:
            raise BadTemplate(1, "is nested too deeply", "expected a few levels") from None
        except ValueError:  # thousands of digits
            raise BadTemplate(1, "holds a number that is too large", "expected a smaller one") from None
        check_tree(tree)
        metered: nodes.Template = _Metering().visit(tree)
        metered.set_environment(self)
        return metered

    def compile_text(self, text: str) -> Template:
        """Raises BadTemplate."""
        try:
            tree = _Inlining(self).visit(self.parse(text))
            tree.set_environment(self)
            template: Template = self.from_string(tree)
            return template
        except TemplateSyntaxError as error:  # what only the compiler notices
            raise BadTemplate(error.lineno, error.message or "does not compile", "expected a Jinja template") from None
        except (SyntaxError, RecursionError, MemoryError):  # Python's own bounds of nesting
            raise BadTemplate(1, "is nested too deeply", "expected a few levels") from None

    def survey(self, text: str) -> Survey:
        """Raises BadTemplate."""
        tree = self.parse(text)
        optional: set[str] = set()
        for node in tree.find_all((nodes.Test, nodes.Filter)):
            if isinstance(node.node, nodes.Name) and node.name in ("defined", "undefined", "default", "d"):
                optional.add(node.node.name)
        return Survey(
            reads=frozenset(find_undeclared_variables(tree) - optional),
            binds=frozenset(node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"),
            includes=tuple(dict.fromkeys(node.template.as_const() for node in tree.find_all(nodes.Include))),
        )

    def varies(self, text: str) -> bool:
        """True where anything from outside may have a say in what comes out, present or absent; raises BadTemplate."""
        if "{{" not in text and "{%" not in text:
            return False
        tree = _Inlining(self).visit(self.parse(text))
        names = list(tree.find_all(nodes.Name))
        own = {node.name for node in names if node.ctx != "load"}
        return any(node.name not in own for node in names) or next(tree.find_all(nodes.Include), None) is not None

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            str(obj)  # says which variable is missing
        try:
            if isinstance(obj, Mapping) or (isinstance(obj, (list, tuple, str)) and isinstance(argument, int)):
                return obj[argument]
        except (LookupError, TypeError):
            pass
        return self.undefined(obj=obj, name=argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP_MEMBERS:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            context[_METER].work(len(left) + len(right))
        return left + right

    def is_safe_callable(self, obj: Any) -> bool:
        return False

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return False


def with_meter(values: Mapping[str, Any], meter: Meter) -> dict[str, Any]:
    """What templates may look up, for all texts of one prompt."""
    return {**values, _METER: meter}


def render_text(template: Template, values: dict[str, Any]) -> str:
    """One text; `values` come from `with_meter`.

    Raises Invalid: an input is missing or does not fit, or the meter ran out.
    """
    meter: Meter = values[_METER]
    pieces: list[str] = []
    try:
        # As `template.new_context` makes it, without its copies: there are no globals here.
        context = Context(template.environment, values, template.name, template.blocks)
        made = template.root_render_func(context)
        while some := list(islice(made, _PIECES_AT_ONCE)):
            meter.put_out(sum(map(len, some)))
            pieces += some
    except UndefinedError as error:
        raise Invalid(("inputs", str(error)), f"Missing input '{error}'", "missing") from None
    except RecursionError:
        raise TooLarge from None
    except (TypeError, ValueError, LookupError, OverflowError) as error:  # which authors are told, and callers not
        raise Invalid(("inputs",), "Inputs do not fit the prompt") from error
    return "".join(pieces)


class _Metering(NodeTransformer):
    """Rewrites what would run unmetered: loops, includes, slices and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 Jinja's own naming
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "turns", [], [], None, None, lineno=node.lineno)
        turn = nodes.Filter(nodes.Const(True), "turn", [], [], None, None, lineno=node.lineno)
        if node.test is not None:
            node.test = nodes.And(turn, node.test, lineno=node.lineno)
        else:
            node.body = [nodes.If(turn, node.body, [], [], lineno=node.lineno)]
        return node

    def visit_Include(self, node: nodes.Include) -> nodes.Node:  # noqa: N802
        # Templates that include each other twice over would otherwise double without a loop.
        once = nodes.Filter(nodes.Const("1"), "turns", [], [], None, None, lineno=node.lineno)
        return nodes.If(once, [node], [], [], lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop)]
        return nodes.Filter(node.node, "cut", ends, [], None, None, lineno=node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None, lineno=node.lineno)


class _Inlining(NodeTransformer):
    """Puts included templates in the place of their includes: at run time each would cost a context of its own.

    Templates that include each other many times over stay as they are beyond a bound, and are metered.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.trail: tuple[str, ...] = ()
        self.left = MAX_INLINED

    def visit_If(self, node: nodes.If) -> nodes.Node:  # noqa: N802 Jinja's own naming
        # As `_Metering` leaves an include: below a test that pays for it, and that is not needed in place.
        if len(node.body) == 1 and isinstance(node.body[0], nodes.Include):
            inlined = self._inline(node.body[0])
            if inlined is not None:
                return inlined
        self.generic_visit(node)
        return node

    def _inline(self, node: nodes.Include) -> nodes.Node | None:
        name = node.template.as_const()
        source = self.sandbox.templates.get(name)
        if source is None or name in self.trail or not self.left:
            return None
        self.left -= 1
        outside, self.trail = self.trail, (*self.trail, name)
        try:
            included = self.visit(self.sandbox.parse(source))
        except BadTemplate as bad:
            what = f"includes `{name}`, in whose line {bad.line} {bad.what}"
            raise BadTemplate(node.lineno, what, bad.expected) from None
        self.trail = outside
        # What a template sets is its own, as with an include.
        return nodes.Scope(included.body, lineno=node.lineno)


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @pass_context
    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, Undefined) and function is not FILTERS["default"]:
            str(value)  # says which variable is missing
        meter: Meter = context[_METER]
        meter.look_at_the_clock()
        if name in GROWING:
            meter.need(largest_result(name, value, args))
        result = function(value, *args, **kwargs)
        if isinstance(result, (str, list)) and result is not value:
            meter.work(len(result))
        return result

    return metered


@pass_context
def _turn(context: Context, value: Any) -> Any:
    """Each turn of a loop comes by here."""
    context[_METER].look_at_the_clock()
    return value


@pass_context
def _turns(context: Context, values: Any) -> Any:
    """Pays for a whole loop before it begins."""
    if not isinstance(values, (list, tuple, dict, str)):
        str(values)  # says so if it is a missing variable
        raise TypeError("a loop needs a list, a mapping or a text")
    context[_METER].turn(len(values))
    return values
