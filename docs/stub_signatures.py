"""The signatures of what is compiled, from the stubs: a cdef class has none to ask for, and
stubtest holds the stubs against the module.
"""

from __future__ import annotations

import ast
import inspect
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kafka_ext

if TYPE_CHECKING:
    from collections.abc import Callable

STUB = Path(kafka_ext.__file__).with_name("_rdkafka.pyi")

# What the stubs call by names of their own, in words for people.
ALIASES = {
    "_Content": "Buffer | str | None",
    "_Headers": "Mapping[str, Buffer | str | None] | Iterable[tuple[str, Buffer | str | None]]",
    "_OnDelivery": "Callable[[RecordMetadata, KafkaError | None], object]",
    "SupportsIndex": "int",
}


class _Spell(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(ALIASES[node.id], mode="eval").body if node.id in ALIASES else node


def _takes_nothing(function: ast.FunctionDef) -> bool:
    """Whether it is the constructor of a class that cannot be made by hand: `(*args, **kwargs)`,
    and always a TypeError.
    """
    return function.args.vararg is not None and function.args.kwarg is not None


def read() -> dict[str, ast.FunctionDef]:
    """The stubs' functions by qualified name; a class's constructor by the class's."""
    functions: dict[str, ast.FunctionDef] = {}
    for thing in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(thing, ast.FunctionDef):
            functions[thing.name] = thing
        elif isinstance(thing, ast.ClassDef):
            for member in thing.body:
                if (
                    isinstance(member, ast.FunctionDef)
                    and not member.decorator_list
                    and not _takes_nothing(member)
                ):
                    functions[
                        thing.name if member.name == "__init__" else f"{thing.name}.{member.name}"
                    ] = member
    return functions


def signature_of(function: ast.FunctionDef, thing: Callable[..., Any]) -> tuple[str, str]:
    """`(arguments)` and what is returned, as text; a default that the stub leaves out (`...`) is
    asked of the thing itself.
    """
    function = _Spell().visit(function)
    arguments = function.args
    for positional in (arguments.posonlyargs, arguments.args):
        if positional and positional[0].arg == "self":
            del positional[0]
    for place, default in enumerate(arguments.kw_defaults):
        if isinstance(default, ast.Constant) and default.value is ...:
            value = inspect.signature(thing).parameters[arguments.kwonlyargs[place].arg].default
            text = (
                f"{type(value).__name__}.{value.name}" if isinstance(value, Enum) else repr(value)
            )
            arguments.kw_defaults[place] = ast.parse(text, mode="eval").body
    return f"({ast.unparse(arguments)})", ast.unparse(function.returns) if function.returns else ""


def process_signature(
    app: object,
    what: str,
    name: str,
    thing: Any,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str] | None:
    """Sphinx's event autodoc-process-signature."""
    function = read().get(getattr(thing, "__qualname__", ""))
    if function is None:
        return None
    arguments, returned = signature_of(function, thing)
    return arguments, "" if inspect.isclass(thing) else returned
