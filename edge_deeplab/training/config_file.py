"""Settings in a YAML file: read for ``--config``, written into every run folder."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import read_bytes, write_text
from edge_deeplab.training.config import TrainConfig

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
HINTS = get_type_hints(TrainConfig)
HELP = {
    name: " ".join(words.split())
    for name, words in re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", TrainConfig.__doc__ or "", re.MULTILINE)
}
"""What each setting is, from the dataclass's own documentation."""


def read_config(path: str | Path) -> dict[str, Any]:
    """Settings from a YAML file: a mapping of :class:`TrainConfig`'s field names.

    Raises:
        UserError: Unreadable, not YAML, an unknown name, or a value of the wrong kind.
    """
    with needs("train"):
        import yaml
    try:
        record = yaml.safe_load(read_bytes(path).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} must hold settings, one `name: value` a line")
    for name in record:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(FIELDS)}"
            raise UserError(f"{path}: there is no setting {name!r}; {hint}")
    return {name: _value(value, name, f"{path}: {name}") for name, value in record.items()}


def write_config(path: str | Path, config: TrainConfig) -> None:
    """Write every setting with its value, whole or not at all; :func:`read_config` reads it back."""
    with needs("train"):
        import yaml
    record = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110)
    write_text(
        path, f"# edge-deeplab train --config {Path(path).name} --output NEW repeats this run.\n{text}"
    )


def _value(value: Any, name: str, where: str) -> Any:
    """A value as the field's type, or a UserError that says what it should be.

    YAML 1.1 reads 2e-3 as text, so numbers may come as text.
    """
    hint = HINTS[name]
    try:
        if get_origin(hint) is Literal:
            return _one_of(value, get_args(hint))
        if hint is bool:
            return _instance(value, bool)
        if hint is str:
            return _instance(value, str)
        if hint is int:
            return _whole(value)
        if hint is float:
            return _number(value)
        if value is None and type(None) in get_args(hint):
            return None
        if hint == tuple[str, ...]:
            words = [value] if isinstance(value, str) else _instance(value, list)
            return tuple(_instance(word, str) for word in words)
        if hint == tuple[float, float]:
            low, high = _instance(value, list)
            return _number(low), _number(high)
        return _height_and_width(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} must be {KINDS.get(hint, hint)}, not {value!r}") from error


KINDS: dict[Any, str] = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a number",
    tuple[str, ...]: "text or a list of texts",
    tuple[float, float]: "a list of two numbers",
    tuple[int, int]: "[HEIGHT, WIDTH] or HEIGHTxWIDTH, each from 32 to 8192",
    tuple[int, int] | None: "[HEIGHT, WIDTH] or HEIGHTxWIDTH, each from 32 to 8192, or null",
    **{
        hint: f"one of {', '.join(map(str, get_args(hint)))}"
        for hint in HINTS.values()
        if get_origin(hint) is Literal
    },
}


def _instance(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _one_of(value: Any, values: tuple[Any, ...]) -> Any:
    if value not in values or isinstance(value, bool):
        raise ValueError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise TypeError
    return number


def _height_and_width(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        value = [int(part) for part in value.lower().split("x")]
    height, width = (_whole(part) for part in _instance(value, list))
    if not (32 <= height <= 8192 and 32 <= width <= 8192):
        raise ValueError
    return height, width
