"""Templates of Jinja2, in a sandbox that ends.

A template may come with an adapter, so that it must neither reach what is around it nor take for
ever. What is not listed here is refused when a template is read: there are no macros, imports or
blocks, and few filters. What is left has a bounded amount of work: loops and filters count against
`WORK`, and no value is longer than `LONGEST`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from peml.tasks.fields import MissingField, present
from peml.tasks.values import NoText, text_of

LONGEST = 1_000_000
"""Characters of a value, and of what a template writes for a record."""

WORK = 10_000_000
"""What a template may do for a record, in characters that filters read."""

ROUND, ELEMENT = 1_000, 10
"""What a round of a loop weighs, and an element of a list or an object, against a character."""

SOURCE = 20_000
"""Characters that a template may have itself."""

_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword),
    *(nodes.Filter, nodes.Test, nodes.Call, nodes.Getattr, nodes.Getitem, nodes.Slice),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat),
    nodes.CondExpr,
)
_FILTERS = (
    *("capitalize", "count", "d", "default", "first", "float", "int", "items", "last", "length"),
    *("list", "lower", "max", "min", "reverse", "sort", "string", "title", "trim", "truncate"),
    *("unique", "upper", "wordcount"),
)
_OURS = ("join", "replace", "tojson")
_OF_TEXTS = (
    *("capitalize", "count", "endswith", "find", "lower", "lstrip", "removeprefix"),
    *("removesuffix", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"),
    *("title", "upper"),
)
_METHODS: Mapping[type, Sequence[str]] = {
    str: _OF_TEXTS,
    Mapping: ("get", "items", "keys", "values"),
}
_BITS = 1024


class _TooMuch(SecurityError):
    """A template that does not end, or not soon."""

    def __init__(self) -> None:
        super().__init__(
            f"does too much for one record: more than {LONGEST:,} characters, or more than "
            f"{WORK // ROUND:,} rounds of loops"
        )


class _Missing(StrictUndefined):
    """A field that is not there; used in any way, it is a `MissingField`."""

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = None
    ) -> None:
        there = () if obj is missing else present(obj)
        made: Any = lambda _: MissingField(str(name), there)  # noqa: E731  (a class to its type)
        super().__init__(hint, obj, name, made)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2 with what is listed above, and a count of what is done."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            undefined=_Missing,
            finalize=_written,
            keep_trailing_newline=True,
            autoescape=False,
            optimized=False,
        )
        self.left = WORK
        known = {name: self.filters[name] for name in _FILTERS}
        known |= {"join": self._join, "replace": self._replace, "tojson": text_of}
        self.filters = {name: self._counting(function) for name, function in known.items()}
        self.filters |= {"_rounds": self._rounds, "_sized": self._sized}
        self.globals = {"range": self._range}

    def charge(self, work: int) -> None:
        """Count work; raise `_TooMuch` where it is more than is left."""
        self.left -= work
        if self.left < 0:
            raise _TooMuch

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a field of an object, or one of the few methods that values have."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, LoopContext):
            return super().getattr(obj, attribute)
        known = (names for kind, names in _METHODS.items() if isinstance(obj, kind))
        if attribute in next(known, ()):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an element or a part of a value; no attribute."""
        if isinstance(argument, slice):
            self.charge(_size(obj))
        try:
            return obj[argument]
        except (TypeError, LookupError, AttributeError):
            return self.undefined(obj=obj, name=str(argument))

    def is_safe_callable(self, obj: Any) -> bool:
        """Tell whether something may be called: `range`, and methods that are listed."""
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        listed = (name in names for kind, names in _METHODS.items() if isinstance(owner, kind))
        return owner is self or any(listed)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, whose work is what its value holds."""
        self.charge(_size([getattr(obj, "__self__", None), *args]))
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Add values, or compute with numbers; nothing is multiplied but numbers."""
        numbers = all(isinstance(side, int | float) for side in (left, right))
        if operator == "**" or not (operator == "+" or numbers):
            raise SecurityError(f"the operator {operator!r} is for numbers alone")
        found = super().call_binop(context, operator, left, right)
        if isinstance(found, int) and found.bit_length() > _BITS:
            raise _TooMuch
        return self._sized(found)

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.charge(_size([arg for arg in args if not isinstance(arg, _INNER)]))
            return self._sized(function(*args, **kwargs))

        return counted

    def _sized(self, value: Any) -> Any:
        self.charge(_size(value))
        return value

    def _rounds(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.charge(ROUND)
            yield value

    def _range(self, *numbers: int) -> range:
        found = range(*numbers)
        self.charge(ROUND * len(found))
        return found

    def _join(self, values: Iterable[Any], between: str = "") -> str:
        texts = [text_of(value) for value in self._rounds(values)]
        if sum(map(len, texts)) + len(texts) * len(between) > LONGEST:
            raise _TooMuch
        return between.join(texts)

    def _replace(self, text: Any, old: str, new: str) -> str:
        whole = text_of(text)
        if len(whole) + whole.count(old) * len(new) > LONGEST:
            raise _TooMuch
        return whole.replace(old, new)


_INNER = (ImmutableSandboxedEnvironment, nodes.EvalContext)
"""What Jinja2 itself gives to some filters besides values."""


class _Bounded(NodeTransformer):
    """Puts a count around loops, and around values that a template puts together."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_rounds")
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        stored = getattr(node, "ctx", "load") == "store"
        return node if stored else _filtered(node, "_sized")

    visit_Tuple = visit_Dict = visit_Concat = visit_List


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class JinjaTemplate:
    """A template of Jinja2, checked and compiled.

    Args:
        source: Its text.

    Attributes:
        fields: The fields of a record that it uses.

    Raises:
        ValueError: It is malformed, too long, or uses what is not allowed.
    """

    def __init__(self, source: str) -> None:
        if len(source) > SOURCE:
            raise ValueError(f"a template of {len(source):,} characters (at most {SOURCE:,})")
        self._environment = _Environment()
        try:
            tree = self._environment.parse(source)
            _check(tree)
            self.fields = sorted(meta.find_undeclared_variables(tree) - {"range"})
            bounded: Any = _Bounded().visit(tree)
            compiled: Any = self._environment.compile(bounded)
        except TemplateSyntaxError as error:
            raise ValueError(f"{error.message} (line {error.lineno} of the template)") from error
        except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
            raise ValueError("nested too deeply") from error
        self._template = self._environment.template_class.from_code(
            self._environment, compiled, self._environment.make_globals(None)
        )

    def render(self, record: Mapping[str, Any]) -> str:
        """Fill the template from a record.

        Raises:
            MissingField: The record lacks a field that is used.
            NoText: A field holds what has no text.
            ValueError: It does what is not allowed, or too much.
        """
        self._environment.left = WORK
        try:
            return "".join(self._chunks(record))
        except MissingField as error:
            there = error.present or present(record)
            raise MissingField(error.field, there) from None
        except NoText:
            raise
        except TemplateError as error:
            raise ValueError(error.message) from None
        except Exception as error:  # whatever a template makes Python's own functions raise
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def _chunks(self, record: Mapping[str, Any]) -> Iterator[str]:
        length = 0
        for chunk in self._template.generate(record):
            length += len(chunk)
            if length > LONGEST:
                raise _TooMuch
            yield chunk


@functools.lru_cache(maxsize=64)
def jinja_template(source: str) -> JinjaTemplate:
    """Return the template of a text, compiled once.

    Raises:
        ValueError: As for `JinjaTemplate`.
    """
    return JinjaTemplate(source)


def _check(tree: nodes.Template) -> None:
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _NODES) or getattr(node, "recursive", False):
            raise TemplateSyntaxError(f"{type(node).__name__} is not allowed", node.lineno)
        if isinstance(node, nodes.Filter) and node.name not in (
            *_FILTERS,
            "join",
            "replace",
            "tojson",
        ):
            known = ", ".join(sorted({*_FILTERS, "join", "replace", "tojson"}))
            message = f"no filter {node.name!r} (allowed: {known})"
            raise TemplateSyntaxError(message, node.lineno)


def _written(value: Any) -> str:
    """Return what a template writes for a value: its text, as the file has it."""
    if isinstance(value, Undefined):
        return str(value)  # which raises
    if value is None:
        raise ValueError("an empty field is written; ask for it first: {% if field %}")
    _size(value)
    return text_of(value)


def _size(value: Any) -> int:
    """Return the weight of a value's characters and elements, those inside of others too."""
    total, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        total += len(each) if isinstance(each, str) else ELEMENT
        if total > LONGEST:
            raise _TooMuch
        if isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, Sequence) and not isinstance(each, str | range):
            waiting += each
    return total
