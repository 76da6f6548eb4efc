"""The input contract: what is written is what is read, and nothing damaged gets in."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

import numpy as np
import pytest

from edge_deeplab import spec
from edge_deeplab.errors import UserError
from edge_deeplab.spec import (
    PERSON_CLASSES,
    ClassInfo,
    ContractError,
    InputContract,
    Provenance,
    Quantization,
)

QUANTIZATION = Quantization("u8s8", "minmax", 128, "eg/train", "ab" * 32, ("backbone.stem",))


def random_contract(seed: int) -> InputContract:
    """Any valid contract."""
    random = np.random.default_rng(seed)

    def choose(kind: Any) -> Any:
        options = get_args(kind)
        return options[int(random.integers(len(options)))]

    def word() -> str:
        letters = list("abcXYZ 0-_/.\\\"'\n\t{}[]é漢😀\x7f")
        return "".join(random.choice(letters, int(random.integers(0, 12))))

    def floats(low: float, high: float) -> tuple[float, float, float]:
        a, b, c = (float(v) for v in random.uniform(low, high, 3))
        return a, b, c

    def color() -> tuple[int, int, int]:
        r, g, b = (int(v) for v in random.integers(0, 256, 3))
        return r, g, b

    return InputContract(
        name=word(),
        variant=word(),
        height=int(random.integers(1, 4000)),
        width=int(random.integers(1, 4000)),
        classes=tuple(ClassInfo(word(), color()) for _ in range(int(random.integers(2, 257)))),
        resize=choose(spec.Resize),
        channels=choose(spec.Channels),
        mean=floats(-10, 300),
        std=floats(0.1, 300),
        layout=choose(spec.Layout),
        dtype=choose(spec.InputDType),
        head=choose(spec.Head),
        head_stride=int(random.integers(1, 33)),
        threshold=float(random.uniform(0.001, 0.999)),
        precision=word(),
        dynamic=tuple(a for a in ("batch", "height", "width") if random.random() < 0.5),
        provenance=Provenance(tuple(word() for _ in range(3)), word(), word(), word(), word()),
        metrics={word(): float(random.normal()) for _ in range(3)},
    )


def record(contract: InputContract) -> dict[str, Any]:
    return json.loads(contract.to_json())


# -- round trip --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_json_round_trip_is_exact(seed: int) -> None:
    original = random_contract(seed)
    for indent in (None, 2):
        back = InputContract.from_json(original.to_json(indent=indent))
        assert back == original
        # Equality does not tell a list from a tuple inside a frozen field that nobody compares by type.
        for field in ("classes", "mean", "std", "dynamic"):
            assert isinstance(getattr(back, field), tuple)
        assert isinstance(back.provenance.data, tuple)
        assert all(isinstance(info.color, tuple) for info in back.classes)


def test_format_comes_first_and_text_stays_readable(contract: InputContract) -> None:
    text = contract.replace(name="porträt").to_json()
    assert text.startswith('{"format": 1, ')
    assert "porträt" in text


def test_defaults_are_the_documented_ones(contract: InputContract) -> None:
    assert (contract.resize, contract.channels, contract.layout, contract.dtype) == (
        "stretch",
        "RGB",
        "NCHW",
        "float32",
    )
    assert contract.mean == contract.std == (128.0, 128.0, 128.0)
    assert (contract.head, contract.head_stride, contract.threshold) == ("logits", 4, 0.5)


# -- what a contract may not say -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height and width must be at least 1"),
        ({"width": -1}, "height and width must be at least 1"),
        ({"classes": PERSON_CLASSES[:1]}, "at least two classes"),
        ({"classes": ()}, "at least two classes"),
        ({"classes": PERSON_CLASSES[:1] * 257}, "at most 256 classes"),
        ({"threshold": 0.0}, "threshold must lie between 0 and 1"),
        ({"threshold": 1.0}, "threshold must lie between 0 and 1"),
        ({"threshold": -0.5}, "threshold must lie between 0 and 1"),
        ({"threshold": math.nan}, "threshold must lie between 0 and 1"),
        ({"std": (1.0, 0.0, 1.0)}, "std must not be 0"),
        ({"mean": (1.0, 2.0)}, "mean and std need three values"),
        ({"std": (1.0, 2.0, 3.0, 4.0)}, "mean and std need three values"),
        ({"mean": (1.0, math.nan, 1.0)}, "mean and std must be finite"),
        ({"std": (1.0, math.inf, 1.0)}, "mean and std must be finite"),
        ({"dynamic": ("batch", "depth")}, "dynamic axes are batch, height and width, not batch, depth"),
        ({"classes": (*PERSON_CLASSES[:1], ClassInfo("x", (0, 256, 0)))}, "three numbers, 0..255"),
        ({"classes": (*PERSON_CLASSES[:1], ClassInfo("x", (0, 1)))}, "three numbers, 0..255"),  # type: ignore[arg-type]
        ({"head_stride": 0}, "head_stride must be at least 1"),
        ({"resize": "crop"}, "resize must be one of stretch, letterbox, not 'crop'"),
        ({"channels": "GRB"}, "channels must be one of RGB, BGR, not 'GRB'"),
        ({"layout": "CHWN"}, "layout must be one of NCHW, NHWC, not 'CHWN'"),
        ({"dtype": "float16"}, "dtype must be one of float32, uint8, int8, not 'float16'"),
        (
            {"head": "softmax"},
            "head must be one of logits, logits-full, classmap, probability, not 'softmax'",
        ),
    ],
)
def test_validation(contract: InputContract, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match="input contract of 'toy': ") as caught:
        contract.replace(**changes)
    assert message in str(caught.value)
    with pytest.raises(ContractError, match="input contract of 'toy'"):
        InputContract(
            **{**{f.name: getattr(contract, f.name) for f in dataclasses.fields(contract)}, **changes}
        )


@pytest.mark.parametrize(
    "changes",
    [{"head_stride": 1}, {"height": 1, "width": 1}, {"threshold": 1e-9}, {"classes": PERSON_CLASSES * 128}],
)
def test_limits_are_allowed(contract: InputContract, changes: dict[str, Any]) -> None:
    assert InputContract.from_json(contract.replace(**changes).to_json()) == contract.replace(**changes)


def test_a_contract_error_is_a_user_error() -> None:
    assert issubclass(ContractError, UserError)


# -- damaged records -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 99, 1.5, "1", None])
def test_another_format_is_refused_with_a_cure(contract: InputContract, number: Any) -> None:
    text = json.dumps({**record(contract), "format": number, "a field of the future": 1})
    with pytest.raises(
        ContractError, match=r"model\.onnx has an input contract of format .*pip install -U edge-deeplab"
    ):
        InputContract.from_json(text, source="model.onnx")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", "[1]", "1", "null", '"text"', "{}", '{"format": 1}', "{'format': 1}"]
)
def test_damaged_json_is_refused_and_names_the_source(text: str) -> None:
    with pytest.raises(ContractError, match=r"model\.onnx holds a damaged input contract"):
        InputContract.from_json(text, source="model.onnx")


def test_every_truncation_is_refused(contract: InputContract) -> None:
    text = contract.to_json()
    for length in range(len(text)):
        with pytest.raises(ContractError):
            InputContract.from_json(text[:length])


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(InputContract)])
def test_a_missing_field_is_refused_not_guessed(contract: InputContract, field: str) -> None:
    damaged = record(contract.replace(quantization=QUANTIZATION))
    if field == "quantization":  # float models have none
        assert field not in record(contract)
        assert InputContract.from_json(contract.to_json()).quantization is None
        return
    del damaged[field]
    with pytest.raises(ContractError, match=field):
        InputContract.from_json(json.dumps(damaged))


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Provenance)])
def test_a_missing_provenance_field_is_refused_not_guessed(contract: InputContract, field: str) -> None:
    damaged = record(contract)
    del damaged["provenance"][field]
    with pytest.raises(ContractError, match=field):
        InputContract.from_json(json.dumps(damaged))


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Quantization)])
def test_a_missing_quantization_field_is_refused(contract: InputContract, field: str) -> None:
    damaged = record(contract.replace(quantization=QUANTIZATION))
    del damaged["quantization"][field]
    with pytest.raises(ContractError, match=field):
        InputContract.from_json(json.dumps(damaged))


def test_quantization_is_kept_and_absent_from_float_models(contract: InputContract) -> None:
    quantized = contract.replace(quantization=QUANTIZATION)
    assert InputContract.from_json(quantized.to_json()) == quantized
    assert "quantization" not in record(contract)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.51},
        {"mean": [127.5] * 3},
        {"channels": "BGR"},
        {"classes": [{"name": "person", "color": [0, 0, 0]}, {"name": "background", "color": [0, 0, 0]}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_record_is_noticed(contract: InputContract, change: dict[str, Any]) -> None:
    """Each of these is a valid contract that the graph does not contradict."""
    text = json.dumps({**record(contract), **change})
    with pytest.raises(ContractError, match=r"^x\.onnx: its input contract was changed after it was written"):
        InputContract.from_json(text, source="x.onnx")


def test_the_checksum_does_not_mind_order_and_spacing(contract: InputContract) -> None:
    known = record(contract.replace(name="porträt", quantization=QUANTIZATION))
    assert list(known)[-1] == "sha256"
    turned = dict(reversed(known.items()))
    assert InputContract.from_json(json.dumps(turned, indent=3)).name == "porträt"


@pytest.mark.parametrize("checksum", [None, "", "missing"])
def test_a_record_without_its_checksum_is_refused(contract: InputContract, checksum: str | None) -> None:
    """Else whoever changes one only has to leave it out."""
    known = {**record(contract), "sha256": checksum}
    if checksum == "missing":
        del known["sha256"]
    with pytest.raises(ContractError, match=r"^x\.onnx: its input contract has lost its checksum"):
        InputContract.from_json(json.dumps(known), source="x.onnx")


def test_unknown_fields_are_refused(contract: InputContract) -> None:
    with pytest.raises(ContractError, match="surprise"):
        InputContract.from_json(json.dumps({**record(contract), "surprise": 1}))
    damaged = record(contract)
    damaged["provenance"]["surprise"] = 1
    with pytest.raises(ContractError, match="surprise"):
        InputContract.from_json(json.dumps(damaged))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", "256"),
        ("width", None),
        ("classes", None),
        ("classes", [["background", [0, 0, 0]], ["person", [1, 2, 3]]]),
        ("classes", [{"name": "background"}, {"name": "person"}]),
        ("classes", [{"name": "a", "color": [0, 0]}, {"name": "b", "color": [0, 0, 0]}]),
        ("classes", [{"name": "a", "color": ["x", 0, 0]}, {"name": "b", "color": [0, 0, 0]}]),
        ("classes", [{"name": "a", "color": [0, 0, 0]}, {"name": "b", "color": [0, 0, 256]}]),
        ("classes", [{"name": "a", "color": [0, 0, 0]}, {"name": "b", "color": [-1, 0, 0]}]),
        ("threshold", "0.5"),
        ("mean", 128),
        ("provenance", None),
        ("provenance", []),
        ("dynamic", None),
        ("metrics", None),
        ("layout", "CHWN"),
        ("head_stride", 0),
    ],
)
def test_values_of_a_wrong_kind_are_refused(contract: InputContract, field: str, value: Any) -> None:
    with pytest.raises(ContractError):
        InputContract.from_json(json.dumps({**record(contract), field: value}))


def test_an_impossible_value_in_a_file_names_the_file(contract: InputContract) -> None:
    with pytest.raises(ContractError, match=r"model\.onnx"):
        InputContract.from_json(json.dumps({**record(contract), "threshold": 2}), source="model.onnx")


# -- derived -------------------------------------------------------------------------------------


def test_frozen(contract: InputContract) -> None:
    for target, field in (
        (contract, "threshold"),
        (contract.provenance, "date"),
        (contract.classes[0], "name"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(target, field, "changed")


def test_replace_leaves_the_original(contract: InputContract) -> None:
    changed = contract.replace(threshold=0.25, head="probability")
    assert (changed.threshold, changed.head) == (0.25, "probability")
    assert (contract.threshold, contract.head) == (0.5, "logits")


def test_output_channels(contract: InputContract, four_classes: InputContract) -> None:
    assert contract.binary
    assert contract.output_channels == 1
    assert not four_classes.binary
    assert four_classes.output_channels == 4


def test_logit_threshold_is_the_inverse_of_the_sigmoid(contract: InputContract) -> None:
    assert contract.logit_threshold == 0.0
    assert contract.replace(threshold=0.75).logit_threshold == pytest.approx(math.log(3))
    for threshold in np.linspace(0.001, 0.999, 99):
        logit = contract.replace(threshold=float(threshold)).logit_threshold
        assert 1 / (1 + math.exp(-logit)) == pytest.approx(threshold, rel=1e-12)


def test_person_classes_are_the_okabe_ito_bluish_green_on_black() -> None:
    assert [(info.name, info.color) for info in PERSON_CLASSES] == [
        ("background", (0, 0, 0)),
        ("person", (0, 158, 115)),
    ]
