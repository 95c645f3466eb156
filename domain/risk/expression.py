"""A small typed language for rules: text is parsed to a tree, the tree is checked, and compiled to closures.

Values are integers, truth values and texts. Expressions can only use the names in their scope, and nothing is evaluated
as Python. Arithmetic is exact; `//` and `%` round down, and give 0 for a zero divisor. The grammar, loosest first:

either     = both {"or" both}
both       = negation {"and" negation}
negation   = "not" negation | comparison
comparison = sum [("<" | "<=" | ">" | ">=" | "==" | "!=") sum | ["not"] "in" NAME]
sum        = term {("+" | "-") term}
term       = unary {("*" | "//" | "%") unary}
unary      = "-" unary | atom
atom       = INTEGER | TEXT | "true" | "false" | NAME | NAME "(" [either {"," either}] ")" | "(" either ")"

This file is long because parser, checker and compiler share its node types, and a reader follows an expression from
text to closure in one place.
"""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from domain.risk.history import History

MAX_LENGTH: Final = 2_000
"""Maximum length of a source, in characters."""
MAX_NODES: Final = 400
"""Maximum number of nodes of a tree."""
MAX_DEPTH: Final = 40
"""Maximum depth of a tree: each operator, function, sign and bracket on the way down counts."""
MAX_INTEGER: Final = 10**15
"""Largest integer that a source may contain, equal to `domain.payment.MAX_AMOUNT_MINOR`."""

_KEYWORDS: Final = {"and", "or", "not", "in", "true", "false"}
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<integer>[0-9][0-9_]*)
      | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
      | (?P<text>"[^"\n]*"|'[^'\n]*')
      | (?P<sign><=|>=|==|!=|//|[-+*%<>(),])""",
    re.VERBOSE,
)


_QUOTE: Final = "end a text with the quote that it began with, on the same line"
_CURES: Final = {
    "=": "compare with ==",
    "/": "divide with //, which rounds down: there are no fractions",
    ".": "there are no fractions: amounts are in minor units",
    "&": "write and",
    "|": "write or",
    "!": "write not, or != to compare",
    '"': _QUOTE,
    "'": _QUOTE,
}
_SPLIT: Final = "make it two rules"


class BadExpression(ValueError):
    """An expression that cannot be compiled; the message names the column (from 1), what is wrong, and the cure."""

    def __init__(self, column: int, problem: str, cure: str) -> None:
        super().__init__(f"column {column}: {problem}. Cure: {cure}")
        self.column = column


class ValueKind(StrEnum):
    """The kind of value that an expression gives."""

    INTEGER = "an integer"
    TRUTH = "a truth value"
    TEXT = "a text"


TO_BE: Final = {
    ValueKind.INTEGER: "give an integer, as if(condition, 1, 0) does",
    ValueKind.TRUTH: "compare it, as in count(account, 50) > 3",
    ValueKind.TEXT: "give a text, in quotes or by the name of a feature",
}
"""Cures for an expression that gives another kind of value than wanted, by the wanted kind."""
Evaluate: TypeAlias = Callable[[History, int], Any]
"""Function that returns the value for the payment at an index of its account's history."""


class HistoryNeeds(NamedTuple):
    """The time (milliseconds) and payments (`rows`) that an expression looks back, and its labels, as (key, window)."""

    window_ms: int = 0
    rows: int = 0
    confirmed: tuple[tuple[str, int], ...] = ()

    def __or__(self, other: "HistoryNeeds") -> "HistoryNeeds":
        return HistoryNeeds(
            max(self.window_ms, other.window_ms),
            max(self.rows, other.rows),
            tuple(dict.fromkeys(self.confirmed + other.confirmed)),
        )


NO_NEEDS: Final = HistoryNeeds()


class IntegerComparison(NamedTuple):
    """A comparison of two integers in an expression; `fraudcase explain` shows both sides."""

    left: str
    sign: str
    right: str
    evaluate_left: Evaluate
    evaluate_right: Evaluate


Trace: TypeAlias = Callable[[History, int], Iterable[int]]
"""Function that returns the indexes of the payments that a windowed feature counts."""


class CompiledExpression(NamedTuple):
    """A checked expression. `constant` is its value if that depends on nothing, else None."""

    kind: ValueKind
    evaluate: Evaluate
    needs: HistoryNeeds = NO_NEEDS
    constant: int | str | bool | None = None
    comparisons: tuple[IntegerComparison, ...] = ()
    traces: tuple[Trace, ...] = ()


@dataclass(frozen=True, slots=True)
class SyntaxNode:
    """A node of the tree, with the range of the source that it was read from."""

    start: int
    end: int

    @property
    def column(self) -> int:
        """Return the first column of the node, counted from 1."""
        return self.start + 1


@dataclass(frozen=True, slots=True)
class LiteralNode(SyntaxNode):
    """An integer, a truth value or a text in the source."""

    value: int | bool | str


@dataclass(frozen=True, slots=True)
class NameNode(SyntaxNode):
    """A named feature."""

    name: str


@dataclass(frozen=True, slots=True)
class CallNode(SyntaxNode):
    """A function and its arguments."""

    name: str
    arguments: tuple[SyntaxNode, ...]


@dataclass(frozen=True, slots=True)
class OperationNode(SyntaxNode):
    """An operator with its operands: two or more, or one behind a sign or `not`."""

    sign: str
    operands: tuple[SyntaxNode, ...]


@dataclass(frozen=True, slots=True)
class MembershipNode(SyntaxNode):
    """A test whether a text is in a list of the pack."""

    item: SyntaxNode
    list_name: str
    negated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionScope:
    """The names that an expression may use. A windowed function checks and compiles its own arguments."""

    features: Mapping[str, CompiledExpression]
    functions: Mapping[str, Callable[[CallNode], CompiledExpression]]
    lists: Mapping[str, Set[str]] = field(default_factory=dict)


def compile_expression(source: str, scope: ExpressionScope) -> CompiledExpression:
    """Compile an expression. Raises BadExpression."""
    return _Compiler(source, scope).compile(_parse(source))


# -- text to tree -------------------------------------------------------------------------------------


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def _tokens(source: str) -> Iterator[_Token]:
    position = 0
    while position < len(source):
        matched = _TOKEN.match(source, position)
        if matched is None:
            character = source[position]
            cure = _CURES.get(character, "see docs/rules for what can be written")
            raise BadExpression(position + 1, f"{character!r} cannot be read", cure)
        if matched.lastgroup != "space":
            kind = "word" if matched.group() in _KEYWORDS else str(matched.lastgroup)
            yield _Token(kind, matched.group(), position)
        position = matched.end()
    yield _Token("end", "the end", len(source))


def _parse(source: str) -> SyntaxNode:
    if len(source) > MAX_LENGTH:
        raise BadExpression(MAX_LENGTH, f"{len(source)} characters, {MAX_LENGTH} are allowed", _SPLIT)
    return _Parser(source).parse()


class _Parser:
    """A recursive-descent parser with one method per level of the grammar; it limits the depth while it reads."""

    def __init__(self, source: str) -> None:
        self._tokens = list(_tokens(source))
        self._position = 0
        self._depth = 0

    def parse(self) -> SyntaxNode:
        node = self._either()
        if self._next.kind != "end":
            raise self._unexpected("an operator or the end")
        return node

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    @property
    def _end(self) -> int:
        before = self._tokens[self._position - 1]
        return before.start + len(before.text)

    def _take(self, *texts: str) -> str | None:
        token = self._next
        if token.kind in ("sign", "word") and token.text in texts:
            self._position += 1
            return token.text
        return None

    def _expect(self, text: str) -> None:
        if self._take(text) is None:
            raise self._unexpected(f"{text!r}")

    def _unexpected(self, wanted: str) -> BadExpression:
        token = self._next
        found = token.text if token.kind in ("end", "text") else repr(token.text)
        return BadExpression(token.start + 1, f"found {found}", f"write {wanted}")

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadExpression(self._next.start + 1, f"nested deeper than {MAX_DEPTH}", _SPLIT)

    def _joined(self, sign: str, operand: Callable[[], SyntaxNode]) -> SyntaxNode:
        operands = [operand()]
        while self._take(sign):
            operands.append(operand())
        if len(operands) == 1:
            return operands[0]
        return OperationNode(operands[0].start, self._end, sign, tuple(operands))

    def _either(self) -> SyntaxNode:
        self._descend()
        node = self._joined("or", lambda: self._joined("and", self._negation))
        self._depth -= 1
        return node

    def _negation(self) -> SyntaxNode:
        start = self._next.start
        if not self._take("not"):
            return self._comparison()
        self._descend()
        operand = self._negation()
        self._depth -= 1
        return OperationNode(start, self._end, "not", (operand,))

    def _comparison(self) -> SyntaxNode:
        left = self._sum()
        sign = self._take(*COMPARISONS)
        if sign:
            right = self._sum()
            left = OperationNode(left.start, self._end, sign, (left, right))
            if self._next.text in COMPARISONS:
                raise BadExpression(self._next.start + 1, "comparisons do not chain", "write a < b and b < c")
            return left
        negated = self._take("not") is not None
        if negated or self._next.text == "in":
            self._expect("in")
            if self._next.kind != "name":
                raise self._unexpected("the name of a list of the pack")
            list_name = self._next.text
            self._position += 1
            return MembershipNode(left.start, self._end, left, list_name, negated)
        return left

    def _sum(self) -> SyntaxNode:
        return self._chain(("+", "-"), self._term)

    def _term(self) -> SyntaxNode:
        return self._chain(("*", "//", "%"), self._unary)

    def _chain(self, signs: tuple[str, ...], operand: Callable[[], SyntaxNode]) -> SyntaxNode:
        node = operand()
        while sign := self._take(*signs):
            right = operand()
            node = OperationNode(node.start, self._end, sign, (node, right))
        return node

    def _unary(self) -> SyntaxNode:
        start = self._next.start
        if not self._take("-"):
            return self._atom()
        self._descend()
        operand = self._unary()
        self._depth -= 1
        return OperationNode(start, self._end, "negative", (operand,))

    def _atom(self) -> SyntaxNode:
        token = self._next
        if self._take("("):
            node = self._either()
            self._expect(")")
            return node
        if self._take("true", "false"):
            return LiteralNode(token.start, self._end, token.text == "true")
        if token.kind not in ("integer", "text", "name"):
            raise self._unexpected("a value")
        self._position += 1
        if token.kind == "integer":
            return LiteralNode(token.start, self._end, _integer(token))
        if token.kind == "text":
            return LiteralNode(token.start, self._end, token.text[1:-1])
        if not self._take("("):
            return NameNode(token.start, self._end, token.text)
        arguments: list[SyntaxNode] = []
        while not self._take(")"):
            if arguments:
                self._expect(",")
            arguments.append(self._either())
        return CallNode(token.start, self._end, token.text, tuple(arguments))


def _integer(token: _Token) -> int:
    digits = token.text.replace("_", "")
    if len(digits) > len(str(MAX_INTEGER)) or int(digits) > MAX_INTEGER:
        raise BadExpression(token.start + 1, f"{token.text[:20]} is too large", f"at most {MAX_INTEGER}")
    return int(digits)


# -- tree to closures ---------------------------------------------------------------------------------

COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
"""Function of each comparison operator."""


def _divide(a: int, b: int) -> int:
    return a // b if b else 0


def _remainder(a: int, b: int) -> int:
    return a % b if b else 0


_ARITHMETIC: Final[dict[str, Callable[[int, int], int]]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": _divide, "%": _remainder,
}  # fmt: skip


class _Compiler:
    """A compiler that checks the kinds of values from the leaves up, and makes the closures on the way."""

    def __init__(self, source: str, scope: ExpressionScope) -> None:
        self._source = source
        self._scope = scope
        self._nodes = 0
        self._depth = 0

    def compile(self, node: SyntaxNode) -> CompiledExpression:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES:
            raise BadExpression(node.column, f"more than {MAX_NODES} parts", _SPLIT)
        if self._depth > MAX_DEPTH:
            raise BadExpression(node.column, f"more than {MAX_DEPTH} operators deep", _SPLIT)
        made = self._compiled(node)
        self._depth -= 1
        return made

    def _compiled(self, node: SyntaxNode) -> CompiledExpression:
        match node:
            case LiteralNode(value=value):
                return constant_expression(value)
            case NameNode(name=name):
                return self._feature(node, name)
            case CallNode():
                return self._call(node)
            case MembershipNode():
                return self._membership(node)
            case OperationNode(sign="and" | "or"):
                return self._logic(node)
            case OperationNode(sign="not", operands=(operand,)):
                return _applied(operator.not_, self._of(operand, ValueKind.TRUTH))
            case OperationNode(sign="negative", operands=(operand,)):
                return _applied(operator.neg, self._of(operand, ValueKind.INTEGER))
            case OperationNode(sign=sign, operands=(left, right)) if sign in COMPARISONS:
                return self._comparison(sign, left, right)
            case OperationNode(sign=sign, operands=(left, right)):
                a, b = self._of(left, ValueKind.INTEGER), self._of(right, ValueKind.INTEGER)
                return _joined(_ARITHMETIC[sign], a, b, ValueKind.INTEGER)
        raise AssertionError(node)  # the parser makes no other nodes

    def _of(self, node: SyntaxNode, kind: ValueKind) -> CompiledExpression:
        made = self.compile(node)
        if made.kind is not kind:
            raise BadExpression(node.column, f"{self._text(node)} is {made.kind}, not {kind}", TO_BE[kind])
        return made

    def _text(self, node: SyntaxNode) -> str:
        return self._source[node.start : node.end]

    def _feature(self, node: SyntaxNode, name: str) -> CompiledExpression:
        feature = self._scope.features.get(name)
        if feature is not None:
            return feature
        if name in self._scope.functions:
            raise BadExpression(node.column, f"{name} is a function", f"write {name}(...)")
        raise BadExpression(node.column, f"unknown feature {name}", suggest_name(name, self._scope.features))

    def _call(self, node: CallNode) -> CompiledExpression:
        windowed = self._scope.functions.get(node.name)
        if windowed is not None:
            return windowed(node)
        if node.name == "if":
            return self._if(node)
        if node.name in ("min", "max"):
            return self._extreme(node)
        if node.name == "abs":
            (argument,) = _arguments(node, 1)
            return _applied(abs, self._of(argument, ValueKind.INTEGER))
        names = ["if", "min", "max", "abs", *self._scope.functions]
        raise BadExpression(node.column, f"unknown function {node.name}", suggest_name(node.name, names))

    def _if(self, node: CallNode) -> CompiledExpression:
        condition, then, otherwise = _arguments(node, 3)
        c, a, b = self._of(condition, ValueKind.TRUTH), self.compile(then), self.compile(otherwise)
        if a.kind is not b.kind:
            raise BadExpression(otherwise.column, f"if gives {a.kind} or {b.kind}", "make both results alike")
        decide, yes, no = c.evaluate, a.evaluate, b.evaluate
        return _compose(
            a.kind,
            lambda history, index: yes(history, index) if decide(history, index) else no(history, index),
            c, a, b,
        )  # fmt: skip

    def _extreme(self, node: CallNode) -> CompiledExpression:
        if len(node.arguments) < 2:
            raise BadExpression(node.column, f"too few arguments for {node.name}", "give two or more")
        choose: Callable[[int, int], int] = min if node.name == "min" else max
        made = self._of(node.arguments[0], ValueKind.INTEGER)
        for argument in node.arguments[1:]:
            made = _joined(choose, made, self._of(argument, ValueKind.INTEGER), ValueKind.INTEGER)
        return made

    def _membership(self, node: MembershipNode) -> CompiledExpression:
        item = self._of(node.item, ValueKind.TEXT)
        members = self._scope.lists.get(node.list_name)
        if members is None:
            raise BadExpression(
                node.end - len(node.list_name) + 1,
                f"the pack has no list {node.list_name}",
                suggest_name(node.list_name, self._scope.lists),
            )
        read, wanted = item.evaluate, not node.negated
        return _compose(ValueKind.TRUTH, lambda history, index: (read(history, index) in members) is wanted, item)

    def _logic(self, node: OperationNode) -> CompiledExpression:
        made = [self._of(operand, ValueKind.TRUTH) for operand in node.operands]
        result = made[-1]
        for before in reversed(made[:-1]):
            result = _both(before, result) if node.sign == "and" else _either(before, result)
        return result

    def _comparison(self, sign: str, left: SyntaxNode, right: SyntaxNode) -> CompiledExpression:
        a, b = self.compile(left), self.compile(right)
        if a.kind is not b.kind:
            raise BadExpression(right.column, f"{a.kind} cannot be compared with {b.kind}", TO_BE[a.kind])
        if a.kind is not ValueKind.INTEGER and sign not in ("==", "!="):
            raise BadExpression(left.column, "only integers are in order", f"compare {a.kind} by == or !=")
        made = _joined(COMPARISONS[sign], a, b, ValueKind.TRUTH)
        if a.kind is not ValueKind.INTEGER:
            return made
        own = IntegerComparison(self._text(left), sign, self._text(right), a.evaluate, b.evaluate)
        return made._replace(comparisons=(*made.comparisons, own))


def constant_expression(value: int | bool | str) -> CompiledExpression:
    """Return an expression that always gives this value."""
    kind = (
        ValueKind.TEXT if isinstance(value, str) else ValueKind.TRUTH if isinstance(value, bool) else ValueKind.INTEGER
    )
    return CompiledExpression(kind, lambda _history, _index: value, constant=value)


def _arguments(node: CallNode, count: int) -> tuple[SyntaxNode, ...]:
    if len(node.arguments) != count:
        raise BadExpression(node.column, f"{len(node.arguments)} arguments for {node.name}", f"give {count}")
    return node.arguments


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return the cure for an unknown name: the nearest known name, or all known names."""
    close = get_close_matches(name, known := list(known), n=1)
    if close:
        return f"write {close[0]}"
    return f"write one of {', '.join(known)}" if known else "there is none to be named"


def _compose(kind: ValueKind, evaluate: Evaluate, *parts: CompiledExpression) -> CompiledExpression:
    """Return an expression with the needs, comparisons and traces of its parts."""
    needs = NO_NEEDS
    for part in parts:
        needs |= part.needs
    return CompiledExpression(
        kind,
        evaluate,
        needs,
        comparisons=tuple(each for part in parts for each in part.comparisons),
        traces=tuple(each for part in parts for each in part.traces),
    )


def _joined(
    function: Callable[[Any, Any], Any], a: CompiledExpression, b: CompiledExpression, kind: ValueKind
) -> CompiledExpression:
    left, right, second = a.evaluate, b.evaluate, b.constant
    if a.constant is not None and second is not None:
        return constant_expression(function(a.constant, second))
    if second is not None:  # most operations are with a constant: this saves one call
        return _compose(kind, lambda history, index: function(left(history, index), second), a, b)
    return _compose(kind, lambda history, index: function(left(history, index), right(history, index)), a, b)


def _applied(function: Callable[[Any], Any], a: CompiledExpression) -> CompiledExpression:
    if a.constant is not None:
        return constant_expression(function(a.constant))
    read = a.evaluate
    return a._replace(evaluate=lambda history, index: function(read(history, index)))


def _both(a: CompiledExpression, b: CompiledExpression) -> CompiledExpression:
    left, right = a.evaluate, b.evaluate
    return _compose(ValueKind.TRUTH, lambda history, index: left(history, index) and right(history, index), a, b)


def _either(a: CompiledExpression, b: CompiledExpression) -> CompiledExpression:
    left, right = a.evaluate, b.evaluate
    return _compose(ValueKind.TRUTH, lambda history, index: left(history, index) or right(history, index), a, b)
