"""The records: there and back, refusals with the place of the mistake, and the published schema."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from edge_deeplab.bench.record import FORMAT, Contender, Job, PeerInput, Plan, Result, result_schema
from edge_deeplab.bench.typed import from_plain, schema, to_plain
from edge_deeplab.errors import UserError

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_a_result_comes_back_as_it_was(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "r.json")
    assert Result.load(tmp_path / "r.json") == result


def test_a_job_comes_back_as_it_was() -> None:
    peer = PeerInput((1.0, 2.0, 3.0), (4.0,), "BGR", "class:15")
    contenders = (Contender("a", "/a.onnx", None, {"size": [64, 96]}), Contender("b", "/b", peer=peer))
    job = Job(contenders, Plan("stream", fps=25), ("abc",), (0, 2))
    text = job.to_json()
    assert "\n" not in text
    assert Job.from_json(text) == job


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"frame": "640x480"}, "frame: a list was expected", id="type"),
        pytest.param({"frame": [480, "wide"]}, "frame[1]: integer expected, not 'wide'", id="inside a list"),
        pytest.param({"frame": [480, True]}, "frame[1]: integer expected, not True", id="bool is no number"),
        pytest.param({"plan": {"scenario": "single"}}, "plan: no batch, fps", id="missing"),
        pytest.param({"surprise": 1}, "unknown surprise", id="unknown"),
        pytest.param({"machine": 3}, "machine: an object was expected, not 3", id="no object"),
        pytest.param({"format": FORMAT + 1}, f"has format {FORMAT + 1}", id="newer"),
    ],
)
def test_a_damaged_result_is_refused(result: Result, change: dict[str, Any], words: str) -> None:
    record = {**json.loads(result.to_json()), **change}
    with pytest.raises(UserError) as refused:
        Result.from_json(json.dumps(record), source="r.json")
    assert words in str(refused.value)
    assert str(refused.value).startswith("r.json")


def test_a_wrong_choice_is_refused(result: Result) -> None:
    record = json.loads(result.to_json())
    record["plan"]["scenario"] = "server"
    with pytest.raises(UserError, match=r"plan\.scenario: 'server' is none of single, stream, offline"):
        Result.from_json(json.dumps(record))


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', '{"a": 1}'])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        Result.load(tmp_path / "x.json")


def test_what_is_no_number_is_not_written(result: Result) -> None:
    with pytest.raises(ValueError, match="no figure"):
        replace(result, conditions=replace(result.conditions, seconds=float("nan"))).to_json()


# -- the schema --------------------------------------------------------------------------------


def test_the_published_schema_is_the_records() -> None:
    """After a change: python -m edge_deeplab.bench.schema > docs/bench-result.schema.json."""
    assert json.loads((DOCS / "bench-result.schema.json").read_text()) == result_schema()


def test_a_result_is_valid(result: Result) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    validator = jsonschema.Draft202012Validator(result_schema())
    validator.check_schema(result_schema())
    record = json.loads(result.to_json())
    assert not list(validator.iter_errors(record))
    record["entries"][0]["fps"] = "many"
    del record["machine"]["cpu"]
    assert {error.json_path for error in validator.iter_errors(record)} == {"$.entries[0].fps", "$.machine"}


def test_every_field_is_described() -> None:
    for name, definition in result_schema()["$defs"].items():
        for field, described in definition["properties"].items():
            assert described.get("description") or name == "Ratio", f"{name}.{field}"


@dataclass(frozen=True)
class Inner:
    """Inside.

    Attributes:
        kind: Which
            of two.
    """

    kind: Literal["a", "b"]


@dataclass(frozen=True)
class Outer:
    """Outside."""

    inner: Inner | None
    numbers: dict[str, float]
    many: tuple[Inner, ...]
    anything: Any


def test_schema_of_nested_records() -> None:
    found = schema(Outer, identity="x", title="t")
    properties = found["$defs"]["Outer"]["properties"]
    assert found["$ref"] == "#/$defs/Outer"
    assert properties["inner"] == {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]}
    assert properties["numbers"] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert properties["anything"] == {}
    assert found["$defs"]["Inner"]["properties"]["kind"] == {
        "enum": ["a", "b"],
        "description": "Which of two.",
    }


def test_there_and_back_through_nested_records() -> None:
    outer = Outer(Inner("a"), {"x": 1.5}, (Inner("b"),), [1, "two"])
    assert from_plain(Outer, json.loads(json.dumps(to_plain(outer)))) == outer
    assert from_plain(Outer, {"inner": None, "numbers": {"x": 2}, "many": [], "anything": None}) == Outer(
        None, {"x": 2.0}, (), None
    )
