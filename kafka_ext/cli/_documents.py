"""JSON documents, one a line: is this one, and what is the key in it?"""

from __future__ import annotations

import json
from typing import Any, NoReturn


class NotJSONError(ValueError):
    """The line is no JSON document; the message says why."""


class NoKeyError(ValueError):
    """The field is there, but no key can be made of it."""


class _Number(str):
    """A number as it was written: 1.10 is not 1.1, and no number is too long."""

    __slots__ = ()


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_refuse).decode


def parse(line: bytes) -> Any:
    """The document, its numbers as _Number.

    Raises:
        NotJSONError: it is none.
    """
    try:
        return _decode(line.decode())
    except json.JSONDecodeError as exc:
        raise NotJSONError(f"{exc.msg} at character {exc.pos + 1}") from None
    except UnicodeDecodeError as exc:
        raise NotJSONError(f"not UTF-8 at byte {exc.start + 1}") from None
    except RecursionError:
        raise NotJSONError("nested too deep") from None
    except ValueError as exc:
        raise NotJSONError(str(exc)) from None


def key_at(document: Any, field: str) -> bytes | None:
    """The key in a parsed document: a string as it is, anything else as its JSON text, None for
    null and where there is no such field.

    Args:
        field: a name, or a dotted path into nested objects; a field whose own name is all of it
            goes before the path.

    Raises:
        NoKeyError: the string has half a surrogate pair, which no UTF-8 can express.
    """
    found = document
    for name in (field,) if isinstance(document, dict) and field in document else field.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    if found is None:
        return None
    try:
        return (found if isinstance(found, str) else _text(found)).encode()
    except UnicodeEncodeError:
        raise NoKeyError(f"{field} has half a surrogate pair") from None


def _text(value: Any) -> str:
    """Compact JSON, the numbers as they were written."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(
                f"{json.dumps(name, ensure_ascii=False)}:{_text(inner)}"
                for name, inner in value.items()
            )
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
