"""Graphs for TensorRT: the forms all versions read, the same numbers, and rules with words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_deeplab.errors import UserError
from edge_deeplab.export.trt_forms import cast_through_float, quantise_once_per_fusion, slice_whole_shapes
from edge_deeplab.export.trt_prepare import PREPARED_KEY, graph_precision, prepare
from edge_deeplab.export.trt_rules import OPERATORS, GraphError, check, float_operators
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import Head
from tests.runtimes.artefacts import RED_GREEN_BLUE, picture, toy_contract, toy_onnx
from tests.trt.toys import toy_prepared

HEADS: list[Head] = ["logits", "logits-full", "probability", "classmap"]


def answers(model: onnx.ModelProto, **given: NDArray[Any]) -> list[NDArray[Any]]:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, given)
    return found


def chain(model: onnx.ModelProto) -> list[str]:
    """Operators of the last nodes, casts with their type."""
    names = {TensorProto.FLOAT: "float", TensorProto.UINT8: "uint8", TensorProto.FLOAT16: "half"}
    return [
        f"Cast {names[node.attribute[0].i]}" if node.op_type == "Cast" else node.op_type
        for node in model.graph.node
    ]


# -- class maps ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "before"), [(2, ["GreaterOrEqual", "Squeeze"]), (4, ["ArgMax"])])
def test_class_ids_become_uint8_by_way_of_float(tmp_path: Path, classes: int, before: list[str]) -> None:
    contract = toy_contract(head="classmap", head_stride=1)
    if classes == 4:
        contract = contract.replace(classes=RED_GREEN_BLUE)
    path = toy_onnx(tmp_path / "toy.onnx", contract)
    with open_model(path) as model:
        wanted = model.segment(picture(64, 96)).labels
    assert len(np.unique(wanted)) > 1
    prepare(path, "fp32")
    with open_model(path) as model:
        np.testing.assert_array_equal(model.segment(picture(64, 96)).labels, wanted)
    assert chain(onnx.load(path))[1:] == [*before, "Cast float", "Cast uint8"]


def test_every_id_survives_the_way(tmp_path: Path) -> None:
    """256 classes are the most a uint8 map holds, and float32 holds every id exactly."""
    ids = np.arange(256)
    value = np.zeros((1, 256, 16, 16), np.float32)
    value.reshape(256, -1)[ids, ids] = 1
    nodes = [
        helper.make_node("ArgMax", ["x"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["y"], to=TensorProto.UINT8),
    ]
    model = small_model(nodes, (1, 256, 16, 16), (1, 16, 16), TensorProto.UINT8)
    cast_through_float(model)
    (labels,) = answers(model, x=value)
    np.testing.assert_array_equal(labels.ravel(), ids)


def small_model(
    nodes: list[Any],
    given: tuple[Any, ...],
    answered: tuple[Any, ...],
    kind: int = TensorProto.FLOAT,
    constants: dict[str, NDArray[Any]] | None = None,
    given_kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [info("x", given_kind, given)],
        [info("y", kind, answered)],
        [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


# -- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "wanted"), [(0, 2, [2, 3]), (1, None, [3, 4, 5]), (-2, None, [4, 5])]
)
def test_parts_of_shapes_are_sliced(start: int, end: int | None, wanted: list[int]) -> None:
    limits = {"start": start, **({} if end is None else {"end": end})}
    nodes = [
        helper.make_node("Shape", ["x"], ["part"], **limits),
        helper.make_node("Cast", ["part"], ["y"], to=TensorProto.FLOAT),
    ]
    model = small_model(nodes, ("batch", 3, 4, 5), (len(wanted),))
    slice_whole_shapes(model)
    assert [node.op_type for node in model.graph.node] == ["Shape", "Slice", "Cast"]
    assert not model.graph.node[0].attribute
    (found,) = answers(model, x=np.zeros((2, 3, 4, 5), np.float32))
    assert found.tolist() == wanted


def test_whole_shapes_are_left_alone() -> None:
    nodes = [helper.make_node("Shape", ["x"], ["y"])]
    model = small_model(nodes, (2, 3), (2,), TensorProto.INT64)
    slice_whole_shapes(model)
    assert [node.op_type for node in model.graph.node] == ["Shape"]


# -- fusions -------------------------------------------------------------------------------------

SCALE = {"s": np.asarray(np.float32(0.05)), "z": np.asarray(np.int8(0))}


def pair(given: str, made: str) -> list[Any]:
    """A Q/DQ pair from one tensor to another."""
    return [
        helper.make_node("QuantizeLinear", [given, "s", "z"], [f"{made}_q"]),
        helper.make_node("DequantizeLinear", [f"{made}_q", "s", "z"], [made]),
    ]


def residual() -> onnx.ModelProto:
    """conv, clip, conv, sum with the input, conv as head; a pair behind each, as quantisers put them."""
    nodes = [
        *pair("x", "x1"),
        *pair("x", "x2"),
        helper.make_node("Conv", ["x1", "w"], ["a"]),
        *pair("a", "a1"),
        helper.make_node("Clip", ["a1", "low", "high"], ["b"]),
        *pair("b", "b1"),
        helper.make_node("Conv", ["b1", "w"], ["c"]),
        *pair("c", "c1"),
        helper.make_node("Add", ["x2", "c1"], ["d"]),
        *pair("d", "d1"),
        helper.make_node("Conv", ["d1", "w"], ["e"]),
        *pair("e", "y"),
    ]
    weight = np.random.default_rng(3).normal(size=(3, 3, 1, 1)).astype(np.float32)
    constants = {**SCALE, "w": weight, "low": np.asarray(np.float32(0)), "high": np.asarray(np.float32(6))}
    return small_model(nodes, (1, 3, 4, 4), (1, 3, 4, 4), constants=constants)


def edges(model: onnx.ModelProto) -> set[tuple[str, str]]:
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    return {(made[n], node.op_type) for node in model.graph.node for n in node.input if n in made}


def test_what_is_fused_is_rounded_once() -> None:
    model = residual()
    wanted = answers(model, x=np.zeros((1, 3, 4, 4), np.float32))[0].shape
    quantise_once_per_fusion(model)
    onnx.checker.check_model(model, full_check=True)
    assert {("Conv", "Clip"), ("Conv", "Add"), ("DequantizeLinear", "Add")} <= edges(model)
    assert ("Conv", "QuantizeLinear") not in edges(model)
    assert ("DequantizeLinear", "Clip") not in edges(model)
    assert model.graph.node[-1].op_type == "Conv"  # and not a pair: the output is float anyway
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert pairs == 4  # the input twice, behind the activation, behind the sum
    (found,) = answers(model, x=np.ones((1, 3, 4, 4), np.float32))
    assert found.shape == wanted
    once = model.SerializeToString()
    quantise_once_per_fusion(model)
    assert model.SerializeToString() == once


def test_what_tensorrt_computes_in_float() -> None:
    model = residual()
    quantise_once_per_fusion(model)
    # The weights of these convolutions are float: none of them is an int8 one, nor what is fused to them.
    assert float_operators(model) == {"Conv": 3, "Clip": 1, "Add": 1}
    for node in list(model.graph.node):
        if node.op_type == "Conv":
            node.input[1] = "w1"
    weights = pair("w", "w1")
    for place, node in enumerate(weights):
        model.graph.node.insert(place, node)
    assert float_operators(model) == {}
    model.graph.node.append(helper.make_node("Relu", ["x"], ["unread"]))
    assert float_operators(model) == {}  # reads nothing computed, as a first layer would


def test_rounding_once_is_nearer_to_the_float_graph() -> None:
    plain = residual()
    for node in list(plain.graph.node):  # the float graph: without all pairs
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.op_type = "Identity"
            del node.input[1:]
    before, after = residual(), residual()
    quantise_once_per_fusion(after)
    tensor = np.random.default_rng(4).normal(size=(1, 3, 4, 4)).astype(np.float32)
    truth, twice, once = (answers(model, x=tensor)[0] for model in (plain, before, after))
    assert np.abs(once - truth).mean() < np.abs(twice - truth).mean()


def test_a_sum_of_two_convolutions_keeps_one_pair() -> None:
    """TensorRT fuses a sum with one of its inputs; the other arrives as int8."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["x", "w"], ["b"]),
        *pair("a", "a1"),
        *pair("b", "b1"),
        helper.make_node("Add", ["a1", "b1"], ["y"]),
    ]
    weight = np.ones((3, 3, 1, 1), np.float32)
    model = small_model(nodes, (1, 3, 4, 4), (1, 3, 4, 4), constants={**SCALE, "w": weight})
    quantise_once_per_fusion(model)
    assert {("Conv", "Add"), ("DequantizeLinear", "Add")} <= edges(model)


def test_other_consumers_keep_their_pair() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        *pair("a", "a1"),
        helper.make_node("Relu", ["a1"], ["b"]),
        helper.make_node("Concat", ["a1", "b"], ["y"], axis=1),
    ]
    weight = np.ones((3, 3, 1, 1), np.float32)
    model = small_model(nodes, (1, 3, 4, 4), (1, 6, 4, 4), constants={**SCALE, "w": weight})
    before = model.SerializeToString()
    quantise_once_per_fusion(model)
    assert model.SerializeToString() == before


# -- the whole file ------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_the_numbers_do_not_change(tmp_path: Path, head: Head) -> None:
    contract = toy_contract(head=head, head_stride=4 if head in ("logits", "probability") else 1)
    path = toy_onnx(tmp_path / "toy.onnx", contract)
    tensor = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
    with open_model(path) as model:
        before = model.infer(tensor)
    prepare(path, "fp32")
    with open_model(path) as model:
        np.testing.assert_array_equal(model.infer(tensor), before)
        assert model.contract == contract


@pytest.mark.parametrize("graph", ["fp32", "fp16", "int8"])
def test_what_a_prepared_file_says(tmp_path: Path, graph: str) -> None:
    path = toy_prepared(tmp_path / "toy.onnx", graph)
    assert graph_precision(path) == graph
    model = onnx.load(path)
    assert model.opset_import[0].version <= 17
    assert model.ir_version <= 8
    onnx.checker.check_model(model, full_check=True)
    once = path.read_bytes()
    prepare(path, graph)  # type: ignore[arg-type]
    assert path.read_bytes() == once


def test_quantised_toys_answer_nearly_as_the_float_one(tmp_path: Path) -> None:
    """Else the tests with them would show nothing."""
    with open_model(toy_prepared(tmp_path / "float.onnx")) as model:
        wanted = model.segment(picture(64, 96)).labels
    for graph in ("fp16", "int8"):
        with open_model(toy_prepared(tmp_path / f"{graph}.onnx", graph)) as model:
            assert np.mean(model.segment(picture(64, 96)).labels == wanted) > 0.97
            assert model.contract.precision == graph


# -- rules ---------------------------------------------------------------------------------------

F = TensorProto.FLOAT
ONES = np.ones((2, 3, 1, 1), np.float32)


def conv(**constants: Any) -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    return small_model(nodes, (1, 3, 4, 4), (1, 2, 4, 4), constants={"w": ONES, **constants})


def quantised(
    scale: NDArray[Any] | float = 0.1,
    zero: NDArray[Any] | None = None,
    weight: NDArray[Any] | None = None,
    weight_scale: NDArray[Any] | float = 0.1,
    weight_zero: NDArray[Any] | None = None,
) -> onnx.ModelProto:
    weight = ONES.astype(np.int8) if weight is None else weight
    constants = {
        "s": np.asarray(scale, np.float32),
        "z": np.asarray(np.int8(0)) if zero is None else zero,
        "wi": weight,
        "ws": np.asarray(weight_scale, np.float32),
        "wz": np.zeros(np.shape(weight_scale), weight.dtype) if weight_zero is None else weight_zero,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["wi", "ws", "wz"], ["w"], axis=0),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    return small_model(nodes, (1, 3, 4, 4), (1, 2, 4, 4), constants=constants)


def resize(**attributes: Any) -> onnx.ModelProto:
    nodes = [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)]
    sizes = np.array([1, 3, 8, 8], np.int64)
    return small_model(nodes, (1, 3, 4, 4), (1, 3, 8, 8), constants={"sizes": sizes})


def unary(op: str, **more: Any) -> onnx.ModelProto:
    return small_model([helper.make_node(op, ["x"], ["y"])], (1, 3, 4, 4), (1, 3, 4, 4), **more)


def two_outputs() -> onnx.ModelProto:
    model = conv()
    model.graph.output.append(helper.make_tensor_value_info("x", F, (1, 3, 4, 4)))
    return model


def other_domain() -> onnx.ModelProto:
    model = conv()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


BROKEN: dict[str, tuple[Callable[[], onnx.ModelProto], str, str]] = {
    "opset": (lambda: unary("Relu", opset=18), "fp32", "opset 18, TensorRT 8.6 reads up to 17"),
    "domain": (other_domain, "fp32", "operators of domain 'com.microsoft'"),
    "operator": (lambda: unary("Erf"), "fp32", "operator Erf"),
    "outputs": (two_outputs, "fp32", "1 inputs and 2 outputs"),
    "output type": (lambda: unary("Shape", kind=TensorProto.INT64), "fp32", "y is INT64, not FLOAT or UINT8"),
    "dynamic size": (
        lambda: small_model([helper.make_node("Relu", ["x"], ["y"])], (1, 3, "h", 4), (1, 3, "h", 4)),
        "fp32",
        "dynamic size; an engine has one",
    ),
    "uint8 inside": (
        lambda: unary("Relu", kind=TensorProto.UINT8, given_kind=TensorProto.UINT8),
        "fp32",
        "Relu 'y' reads uint8, which only a Cast to float may",
    ),
    "nearest": (lambda: resize(mode="nearest"), "fp32", "Resize 'y' is nearest, None; only linear"),
    "corners": (
        lambda: resize(mode="linear", coordinate_transformation_mode="align_corners"),
        "fp32",
        "Resize 'y' is linear, align_corners",
    ),
    "no ranges": (conv, "int8", "it has no Q/DQ nodes"),
    "ranges": (quantised, "fp16", "it has Q/DQ nodes"),
    "zero point": (
        lambda: quantised(zero=np.asarray(np.int8(3))),
        "int8",
        "QuantizeLinear 'q': the zero point is not an int8 0",
    ),
    "unsigned": (
        lambda: quantised(zero=np.asarray(np.uint8(128))),
        "int8",
        r"zero point is not an int8 0 \(use --scheme s8s8\)",
    ),
    "scale 0": (lambda: quantised(scale=0.0), "int8", "a scale that is no positive float32"),
    "scale NaN": (lambda: quantised(scale=np.nan), "int8", "a scale that is no positive float32"),
    "int32 constant": (
        lambda: quantised(weight=ONES.astype(np.int32), weight_zero=np.asarray(np.int8(0))),
        "int8",
        "'w': a constant that is not int8; biases stay in float",
    ),
    "activations per channel": (
        lambda: quantised(scale=[0.1, 0.2, 0.3], zero=np.zeros(3, np.int8)),
        "int8",
        "one scale per channel is for weights only",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_tensorrt_would_not_take(name: str) -> None:
    make, graph, words = BROKEN[name]
    with pytest.raises(GraphError, match=words) as caught:
        check(make(), graph)  # type: ignore[arg-type]
    assert str(caught.value).startswith("TensorRT would not take the graph: ")
    assert "\n" not in str(caught.value)


def test_what_it_takes() -> None:
    check(conv(), "fp32")
    check(quantised(), "int8")
    check(quantised(weight_scale=[0.1, 0.2]), "int8")
    check(resize(mode="linear", coordinate_transformation_mode="half_pixel"), "fp32")


def test_every_operator_exists() -> None:
    assert {onnx.defs.get_schema(name, 17).name for name in OPERATORS} == OPERATORS


def test_many_problems_are_counted() -> None:
    nodes = [helper.make_node(op, ["x"], [op]) for op in ("Erf", "Sin", "Cos", "Tan")]
    nodes.append(helper.make_node("Relu", ["Tan"], ["y"]))
    with pytest.raises(GraphError, match=r"operator Cos; operator Erf; operator Sin, and 1 more"):
        check(small_model(nodes, (1, 3), (1, 3)), "fp32")


# -- files that were not prepared ----------------------------------------------------------------


def test_a_file_that_was_not_prepared(tmp_path: Path) -> None:
    path = toy_onnx(tmp_path / "toy.onnx")
    with pytest.raises(UserError, match="was not prepared for TensorRT; write one that is") as caught:
        graph_precision(path)
    assert "edge-deeplab export MODEL --target trt --prepare" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{}", "no JSON", '{"format": 2, "graph": "fp32"}', '{"format": 1, "graph": "fp4"}']
)
def test_a_file_of_another_version(tmp_path: Path, text: str) -> None:
    path = toy_prepared(tmp_path / "toy.onnx")
    model = onnx.load(path)
    kept = {p.key: p.value for p in model.metadata_props}
    helper.set_model_props(model, {**kept, PREPARED_KEY: text})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="prepared by another version of edge-deeplab, or is damaged"):
        graph_precision(path)


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(b"garbage")
    with pytest.raises(UserError, match="is damaged or no ONNX model"):
        graph_precision(path)


def test_float16_comes_first_in_a_process(tmp_path: Path) -> None:
    """The converter's package changes ``sys.path`` when imported; undoing that broke what came after it."""
    script = """
import sys, onnx
from edge_deeplab.export.onnx_fp16 import to_half
from edge_deeplab.export.onnx_graph import finish
from edge_deeplab.spec import METADATA_KEY, InputContract
model = onnx.load(sys.argv[1])
contract = {p.key: p.value for p in model.metadata_props}[METADATA_KEY]
print(len(finish(to_half(model), InputContract.from_json(contract))) > 0)
"""
    path = toy_onnx(tmp_path / "toy.onnx")
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
