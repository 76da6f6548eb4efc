"""Frozen records to JSON and back, strictly, and their JSON Schema. Standard library only.

A record is a dataclass whose fields are ``bool``, ``int``, ``float``, ``str``, ``Literal``, ``Any``,
``X | None``, ``tuple[X, ...]``, ``dict[str, X]`` or another record. The same walk over the type hints
reads, checks and describes it, so code and schema cannot part ways.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

SCALARS: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def to_plain(value: Any) -> Any:
    """A record, or what it is made of, as dicts, lists and scalars.

    Raises:
        ValueError: A number is not finite; JSON cannot hold it. Unknown figures are None.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no figure; what is unknown is None")
    return value


def from_plain(kind: type[Record], value: Any, where: str = "") -> Record:
    """Read a record back.

    Args:
        kind: The dataclass.
        value: What ``json.loads`` gave.
        where: Path of ``value`` in the file, for messages.

    Raises:
        ValueError: A field is missing, unknown or of another type; the message names its path.
    """
    read: Record = _read(kind, value, where)
    return read


def schema(kind: type, *, identity: str, title: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a record; field descriptions come from the docstrings."""
    definitions: dict[str, Any] = {}
    top = _describe(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identity,
        "title": title,
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


# -- reading -----------------------------------------------------------------------------------


def _read(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind in SCALARS:
        return _scalar(kind, value, where)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{where}: {value!r} is none of {', '.join(map(str, inner))}")
        return value
    if origin in (Union, types.UnionType):
        (other,) = (k for k in inner if k is not type(None))
        return None if value is None else _read(other, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: a list was expected, not {_shown(value)}")
        return tuple(_read(inner[0], v, f"{where}[{k}]") for k, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: an object was expected, not {_shown(value)}")
        return {k: _read(inner[1], v, f"{where}.{k}") for k, v in value.items()}
    raise TypeError(f"{where}: {kind} has no place in a record")


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: {SCALARS[kind]} expected, not {_shown(value)}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is no figure")
    return value


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or kind.__name__}: an object was expected, not {_shown(value)}")
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for what, odd in (("no", set(names) - set(value)), ("unknown", set(value) - set(names))):
        if odd:
            raise ValueError(f"{where or kind.__name__}: {what} {', '.join(sorted(odd))}")
    prefix = f"{where}." if where else ""
    return kind(**{name: _read(hints[name], value[name], prefix + name) for name in names})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


# -- describing --------------------------------------------------------------------------------


def _describe(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind is Any:
        return {}
    if kind in SCALARS:
        return {"type": SCALARS[kind]}
    if dataclasses.is_dataclass(kind):
        name = kind.__name__  # type: ignore[union-attr]
        if name not in definitions:
            definitions[name] = {}  # holds the place while its own fields are described
            definitions[name] = _describe_record(kind, definitions)
        return {"$ref": f"#/$defs/{name}"}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        (other,) = (k for k in inner if k is not type(None))
        return {"anyOf": [_describe(other, definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _describe(inner[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _describe(inner[1], definitions)}
    raise TypeError(f"{kind} has no place in a record")


def _describe_record(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, words = get_type_hints(kind), _attributes(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        described = _describe(hints[field.name], definitions)
        text = words.get(field.name)
        properties[field.name] = {**described, "description": text} if text else described
    return {
        "type": "object",
        "description": inspect.cleandoc(kind.__doc__ or "").splitlines()[0].replace("`", ""),
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _attributes(kind: Any) -> dict[str, str]:
    """``Attributes:`` of a docstring: name -> words; ``a, b: words`` describes both."""
    found: dict[str, str] = {}
    _, _, text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    for names, words in re.findall(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", text, re.MULTILINE):
        for name in names.split(", "):
            found[name] = " ".join(words.replace("`", "").split())
    return found
