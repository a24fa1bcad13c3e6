"""The expressions of outside suites, as functions over a scope: a small part of ECMAScript, and no more than they need.

Literals, variables, members, operators, a few functions of the platform; and scripts that are assignments. What is no
such expression fails when it is asked, as the recommendation has it of illegal ones; what is ECMAScript, but more
than is done here, is `UnsupportedScriptError`, when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from tests.scxml.ecmascript_values import (
    OPERATORS,
    UNDEFINED,
    ScriptError,
    member,
    number,
    text_of,
    truth,
)


class UnsupportedScriptError(Exception):
    """It is ECMAScript that is not translated; the message says what."""


class Scope(Protocol):
    """Where variables are."""

    def get(self, name: str) -> Any:
        """The value of a variable. Raises ScriptError where there is none of this name."""
        ...

    def set(self, name: str, value: Any) -> None:
        """Assign to a variable. Raises ScriptError where there is none of this name."""
        ...

    def is_in(self, state: str) -> bool:
        """Whether a state is active."""
        ...


Expression = Callable[[Scope], Any]
Assign = Callable[[Scope, Any], None]
_TOKEN = re.compile(
    r"\s*(?://[^\n]*\s*|/\*.*?\*/\s*)*(?P<token>"
    r"(?P<number>\d+(?:\.\d+)?)|(?P<text>'[^'\n]*'|\"[^\"\n]*\")|(?P<name>[A-Za-z_$][\w$]*)"
    r"|===|!==|==|!=|<=|>=|&&|\|\||\+\+|\+=|-=|\*=|[-+*/%<>!=?:.,;(){}\[\]|])|\s*$",
    re.DOTALL,
)
_BINARY: Final = {
    "||": 1, "&&": 2, "|": 3, "==": 4, "!=": 4, "===": 4, "!==": 4, "<": 5, ">": 5, "<=": 5, ">=": 5, "in": 5,
    "instanceof": 5, "+": 6, "-": 6, "*": 7, "/": 7, "%": 7,
}  # fmt: skip
_WORDS: Final = {"true": True, "false": False, "null": None, "undefined": UNDEFINED}
_UNSUPPORTED: Final = frozenset({"function", "new", "for", "while", "try"})
_ILLEGAL: Final = frozenset({"return", "if", "else", "var", "this", "typeof", "in", "instanceof"})


def expression(text: str) -> Expression:
    """The value of it in a scope; raises ScriptError where it is asked."""
    try:
        parser = _Parser(text)
        value = parser.expression()
        parser.end()
    except ScriptError as error:
        return _raising(error)
    return value


def location(text: str) -> Assign:
    """Assigning to it in a scope, which may raise ScriptError."""
    try:
        parser = _Parser(text)
        assign = parser.location()
        parser.end()
    except ScriptError as error:
        return _raising(error)
    return assign


def script(text: str) -> tuple[list[str], Callable[[Scope], None]]:
    """The variables that it declares, and what it does."""
    parser = _Parser(text)
    declared, statements = parser.statements()

    def run(scope: Scope) -> None:
        for statement in statements:
            statement(scope)

    return declared, run


def _raising(error: ScriptError) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise ScriptError(str(error))

    return fail


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ScriptError(f"{text!r} is no expression")
            if found["token"]:
                kind = next((one for one in ("number", "text", "name") if found[one]), "sign")
                if found["token"] in _UNSUPPORTED and kind == "name":
                    raise UnsupportedScriptError(f"a script with {found['token']!r}")
                if found["token"] == "/" and (not self._tokens or self._tokens[-1][1] in "(,="):
                    raise UnsupportedScriptError("a regular expression")
                self._tokens.append((kind, found["token"]))
            at = found.end() if found.end() > at else len(text)
        self._at = 0

    @property
    def _next(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self, *expected: str) -> str:
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")
        if expected and (token not in expected or kind == "text"):
            raise ScriptError(f"{expected[0]!r} is expected, and not {token!r}")
        self._at += 1
        return token

    def _takes(self, token: str) -> bool:
        if self._next != token or self._at >= len(self._tokens):
            return False
        self._at += 1
        return True

    def end(self) -> None:
        if self._next:
            raise ScriptError(f"{self._next!r} is too much")

    def statements(self) -> tuple[list[str], list[Callable[[Scope], Any]]]:
        declared: list[str] = []
        found: list[Callable[[Scope], Any]] = []
        while self._next:
            if self._takes(";"):
                continue
            if self._takes("var"):
                found += self._declarations(declared)
            else:
                found.append(self._statement())
        return declared, found

    def _declarations(self, declared: list[str]) -> list[Callable[[Scope], Any]]:
        found: list[Callable[[Scope], Any]] = []
        while True:
            declared.append(self._next)
            assign = self.location()
            if self._takes("="):
                found.append(_assignment(assign, self.expression()))
            if not self._takes(","):
                return found

    def _statement(self) -> Callable[[Scope], Any]:
        start = self._at
        value = self.expression()
        sign = self._next
        if sign not in ("=", "+=", "-=", "*="):
            return value
        self._at = start
        assign = self.location()
        self._take(sign)
        right = self.expression()
        return _assignment(assign, right if sign == "=" else _binary(sign[0], value, right))

    def location(self) -> Assign:
        name = self._name()
        path: list[Expression] = []
        while self._next in (".", "["):
            if self._takes("."):
                path.append(_constant(self._name()))
            else:
                self._take("[")
                path.append(self.expression())
                self._take("]")
        if not path:
            return lambda scope, value: scope.set(name, value)

        def assign(scope: Scope, value: Any) -> None:
            whole = scope.get(name)
            inner = whole
            for step in path[:-1]:
                inner = member(inner, step(scope))
            if not isinstance(inner, dict) or name.startswith("_"):
                raise ScriptError(f"nothing can be assigned in {name}")
            inner[path[-1](scope)] = value
            scope.set(name, whole)

        return assign

    def _name(self) -> str:
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")
        if kind != "name" or token in _ILLEGAL or token in _WORDS:
            raise ScriptError(f"{token!r} is no name")
        self._at += 1
        return token

    def expression(self, least: int = 0) -> Expression:
        left = self._unary()
        while _BINARY.get(self._next, 0) > least and self._tokens[self._at][0] != "text":
            sign = self._take()
            left = _binary(sign, left, self.expression(_BINARY[sign]))
        return left

    def _unary(self) -> Expression:
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")
        if kind == "text" or token not in ("!", "-", "typeof", "++"):
            return self._postfix()
        self._at += 1
        if token == "++":
            start = self._at
            assign = self.location()
            self._at = start
            return _increment(assign, self._postfix())
        inner = self._unary()
        match token:
            case "!":
                return lambda scope: not truth(inner(scope))
            case "-":
                return lambda scope: -number(inner(scope))
        return lambda scope: _type(scope, inner)

    def _postfix(self) -> Expression:
        value, called = self._primary()
        while True:
            if self._takes("."):
                name = self._name()
                if self._takes("("):
                    value = _call(called, name, value, self._list(")"))
                    continue
                value, called = _get(value, _constant(name)), f"{called}.{name}"
            elif self._takes("["):
                value = _get(value, self.expression())
                self._take("]")
            elif self._takes("("):
                value = _call("", called, value, self._list(")"))
            else:
                return value

    def _list(self, closing: str) -> list[Expression]:
        found: list[Expression] = []
        while not self._takes(closing):
            found.append(self.expression())
            if not self._takes(","):
                self._take(closing)
                break
        return found

    def _primary(self) -> tuple[Expression, str]:
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")
        match kind:
            case "number":
                self._at += 1
                return _constant(float(token) if "." in token else int(token)), ""
            case "text":
                self._at += 1
                return _constant(token[1:-1]), ""
            case "name":
                if token in _WORDS:
                    self._at += 1
                    return _constant(_WORDS[token]), ""
                name = self._name()
                return (lambda scope: scope.get(name)), name
        if self._takes("("):
            inner = self.expression()
            self._take(")")
            return inner, ""
        if self._takes("["):
            items = self._list("]")
            return (lambda scope: [item(scope) for item in items]), ""
        self._take("{")
        return self._object(), ""

    def _object(self) -> Expression:
        fields: list[tuple[str, Expression]] = []
        while not self._takes("}"):
            name = self._take().strip("'\"")
            self._take(":")
            fields.append((name, self.expression()))
            if not self._takes(","):
                self._take("}")
                break
        return lambda scope: {name: value(scope) for name, value in fields}


def _constant(value: Any) -> Expression:
    return lambda _scope: value


def _assignment(assign: Assign, value: Expression) -> Callable[[Scope], None]:
    return lambda scope: assign(scope, value(scope))


def _increment(assign: Assign, value: Expression) -> Expression:
    def increment(scope: Scope) -> Any:
        more = number(value(scope)) + 1
        assign(scope, more)
        return more

    return increment


def _get(value: Expression, name: Expression) -> Expression:
    return lambda scope: member(value(scope), name(scope))


def _type(scope: Scope, inner: Expression) -> str:
    try:
        value = inner(scope)
    except ScriptError:
        return "undefined"
    if value is UNDEFINED:
        return "undefined"
    names = {bool: "boolean", int: "number", float: "number", str: "string"}
    return names.get(type(value), "object")


def _call(owner: str, name: str, value: Expression, given: Sequence[Expression]) -> Expression:
    match owner, name:
        case "", "In":
            return lambda scope: scope.is_in(given[0](scope))
        case "Math", "pow":
            return lambda scope: number(given[0](scope)) ** number(given[1](scope))
        case "JSON", "stringify":
            return lambda scope: text_of(given[0](scope))
        case _, "concat":
            return lambda scope: [*value(scope), *(each for one in given for each in _spread(one(scope)))]
    if not owner and name:

        def nothing(scope: Scope) -> Any:
            scope.get(name)
            raise ScriptError(f"{name} is no function")

        return nothing
    raise UnsupportedScriptError(f"a call of {f'{owner}.{name}'.strip('.') or 'a function'}")


def _spread(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _binary(sign: str, left: Expression, right: Expression) -> Expression:
    match sign:
        case "&&":
            return lambda scope: right(scope) if truth(value := left(scope)) else value
        case "||":
            return lambda scope: value if truth(value := left(scope)) else right(scope)
        case "instanceof":
            return lambda scope: isinstance(left(scope), list)
    plain = OPERATORS[sign]
    return lambda scope: plain(left(scope), right(scope))
