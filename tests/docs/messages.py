"""The sentences that the package can say when something is wrong, as its source has them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import ROOT

from edgeseg import errors

PACKAGE = ROOT / "python" / "edgeseg"
GAP = "…"
"""Where a message has something that varies."""

ERRORS = {
    name
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.EdgesegError)
}
"""Names of the errors' classes."""
# `error` is an argument's name where the caller chooses between two of them.
_SPEAKERS = ERRORS | {"error", "warning"}
_PERCENT = re.compile(r"%[.\d]*[sdf]")  # where a logger's message varies


@dataclass(frozen=True)
class Message:
    """A sentence of the source, a `GAP` where it varies."""

    module: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.module.relative_to(PACKAGE)}:{self.line}: {self.text}"

    def has(self, fragment: str) -> bool:
        """Whether it has the words of `fragment`, whose gaps are any text.

        A gap at the fragment's end is one at the message's end: no other words follow.
        """
        start = 0
        for words in fragment.split(GAP):
            found = self.text.find(words.strip(), start)
            if found < 0:
                return False
            start = found + len(words.strip())
        return not fragment.endswith(GAP) or self.text[start:].strip() == GAP


def messages() -> Iterator[Message]:
    """Every message of an error or a warning that has words of its own."""
    for module in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(module.read_text("utf-8"))
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)] or [tree]
        for scope in (tree, *functions):
            for call in _own(scope):
                if isinstance(call, ast.Call) and _name(call.func) in _SPEAKERS and call.args:
                    text = _text(call.args[0], (scope, tree))
                    if len(re.findall(r"[A-Za-z]{3,}", text)) > 1:
                        yield Message(module, call.lineno, text)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """What is below `scope`, but not inside functions of it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, ast.FunctionDef):
            yield from _own(child)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(expression: ast.expr, scopes: tuple[ast.AST, ...]) -> str:
    match expression:
        case ast.Constant(value=str(text)):
            return " ".join(_PERCENT.sub(GAP, text).split())
        case ast.JoinedStr(values=parts):
            return " ".join("".join(map(_part, parts)).split())
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return f"{_text(left, scopes)} {_text(right, scopes)}"
        case ast.IfExp(body=body, orelse=orelse):
            return f"{_text(body, scopes)} | {_text(orelse, scopes)}"
        case ast.Name(id=name):  # said above
            values = [
                node.value
                for scope in scopes
                for node in _own(scope)
                if isinstance(node, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
            ]
            return _text(values[0], scopes) if values else GAP
        case _:
            return GAP


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else GAP
