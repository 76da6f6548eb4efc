"""The builder's adapter, on every version: what is called in which order, and what is said when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_deeplab.errors import UserError
from edge_deeplab.export.base import silent
from edge_deeplab.export.trt_builder import Api, BuildSettings, GraphPrecision, build
from tests.trt.double import TensorRTDouble
from tests.trt.toys import toy_prepared

ORDER = (
    "Builder",
    "Builder.create_network",
    "OnnxParser",
    "OnnxParser.parse",
    "Builder.create_builder_config",
    "Builder.build_serialized_network",
)


class Notes(list[str]):
    """Collects what the user is told."""

    def __call__(self, line: str) -> None:
        self.append(line)


def run(
    trt: TensorRTDouble, path: Path, graph: GraphPrecision = "fp32", **settings: Any
) -> tuple[bytes, Notes]:
    notes = Notes()
    calibrator = settings.pop("calibrator", None)
    progress = settings.pop("progress", silent)
    chosen = BuildSettings(**{"precision": graph, **settings})
    data = build(
        Api(trt),
        path.read_bytes(),
        chosen,
        graph=graph,
        source=path.name,
        calibrator=calibrator,
        progress=progress,
        note=notes,
    )
    return data, notes


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return toy_prepared(tmp_path / "toy.onnx")


def flags(trt: TensorRTDouble) -> set[str]:
    return {flag.name for (flag,) in trt.called("IBuilderConfig.set_flag")}


# -- order ---------------------------------------------------------------------------------------


def test_the_order_of_a_build(trt: TensorRTDouble, plain: Path) -> None:
    data, notes = run(trt, plain)
    assert data.startswith(b"double engine")
    assert notes == []
    names = trt.names()
    assert [name for name in names if name in ORDER] == list(ORDER)
    assert names[-1] == "Builder.build_serialized_network"  # everything is set before


def test_a_batch_of_one_needs_no_profile(trt: TensorRTDouble, plain: Path) -> None:
    run(trt, plain)
    assert trt.called("IBuilderConfig.add_optimization_profile") == []


def test_a_dynamic_batch_has_a_profile(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = toy_prepared(tmp_path / "toy.onnx", dynamic=("batch",))
    run(trt, path, batch=(1, 4, 16))
    (shapes,) = trt.called("IOptimizationProfile.set_shape")
    assert shapes == ("image", (1, 3, 64, 96), (4, 3, 64, 96), (16, 3, 64, 96))
    names = trt.names()
    assert names.index("IOptimizationProfile.set_shape") < names.index(
        "IBuilderConfig.add_optimization_profile"
    )
    shared = [feature.name for feature, on in trt.called("IBuilderConfig.set_preview_feature") if on]
    assert shared == (["PROFILE_SHARING_0806"] if trt.major < 10 else [])


def test_a_dynamic_size_is_refused(trt: TensorRTDouble, tmp_path: Path) -> None:
    from tests.runtimes.artefacts import toy_contract, toy_onnx

    path = toy_onnx(tmp_path / "toy.onnx", toy_contract(dynamic=("batch", "height", "width")))
    with pytest.raises(UserError, match="one input size: prepare the model with --size"):
        run(trt, path)


# -- precision -----------------------------------------------------------------------------------

OLD = ("8.6.1", "10.3.0", "10.16.1.11")


@pytest.mark.parametrize("graph", ["fp32", "fp16", "int8"])
def test_every_graph_is_built_in_its_own_precision(
    trt: TensorRTDouble, tmp_path: Path, graph: GraphPrecision
) -> None:
    run(trt, toy_prepared(tmp_path / "toy.onnx", graph), graph)
    strong = trt.major >= 11 or (trt.major == 10 and graph == "fp16")
    wanted = {"fp32": set(), "fp16": {"FP16"}, "int8": {"FP16", "INT8"}}[graph]
    assert flags(trt) == (set() if strong else wanted)
    cleared = {flag.name for (flag,) in trt.called("IBuilderConfig.clear_flag")}
    assert cleared == ({"TF32"} if graph == "fp32" else set())
    (network,) = trt.called("Builder.create_network")
    creation = trt.NetworkDefinitionCreationFlag
    if trt.major < 10:
        assert network == (1 << int(creation.EXPLICIT_BATCH),)
    else:
        assert network == (1 << int(creation.STRONGLY_TYPED) if strong else 0,)


def test_fp16_by_flag_up_to_10(trt: TensorRTDouble, plain: Path) -> None:
    if trt.major >= 11:
        with pytest.raises(UserError, match=r"11\.4.* from the graph alone: prepare the model with --fp16"):
            run(trt, plain, precision="fp16")
        return
    run(trt, plain, precision="fp16")
    assert flags(trt) == {"FP16"}


@pytest.mark.parametrize(
    ("graph", "asked", "calibrated", "words"),
    [
        ("int8", "fp16", False, "an engine in fp16 needs one prepared without --int8"),
        ("int8", "fp32", False, "an engine in fp32 needs one prepared without --int8"),
        ("fp16", "fp32", False, "needs one prepared without --fp16"),
        ("fp32", "int8", False, "no INT8 ranges: prepare it with --int8"),
        ("fp16", "int8", False, "no INT8 ranges: prepare it with --int8"),
        ("int8", "int8", True, "--calibrator"),
    ],
)
def test_what_does_not_go_together(
    trt: TensorRTDouble, graph: GraphPrecision, asked: GraphPrecision, calibrated: bool, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        Api(trt).check(graph, BuildSettings(precision=asked), calibrated=calibrated)


def test_calibrators_are_gone_in_11(trt: TensorRTDouble) -> None:
    asked = BuildSettings(precision="int8")
    if trt.major < 11:
        Api(trt).check("fp32", asked, calibrated=True)
        return
    with pytest.raises(UserError, match="has no calibrators; leave --calibrator away and prepare"):
        Api(trt).check("fp32", asked, calibrated=True)


# -- settings ------------------------------------------------------------------------------------


def test_workspace_is_in_bytes(trt: TensorRTDouble, plain: Path) -> None:
    run(trt, plain, workspace_mib=512)
    ((pool, size),) = trt.called("IBuilderConfig.set_memory_pool_limit")
    assert (pool.name, size) == ("WORKSPACE", 512 * 1024 * 1024)


def test_compatibility(trt: TensorRTDouble, plain: Path) -> None:
    run(trt, plain, hardware="ampere-plus", version_compatible=True)
    ((level,),) = trt.called("IBuilderConfig.hardware_compatibility_level=")
    assert level.name == "AMPERE_PLUS"
    assert flags(trt) == {"VERSION_COMPATIBLE"}


def test_the_newer_hardware_level(trt: TensorRTDouble, plain: Path) -> None:
    if trt.__version__ in ("8.6.1", "10.3.0"):
        with pytest.raises(UserError, match=r"no --hardware same-compute-capability; 10\.9 and newer have"):
            run(trt, plain, hardware="same-compute-capability")
        return
    run(trt, plain, hardware="same-compute-capability")
    ((level,),) = trt.called("IBuilderConfig.hardware_compatibility_level=")
    assert level.name == "SAME_COMPUTE_CAPABILITY"


def test_a_dla_core(trt: TensorRTDouble, tmp_path: Path) -> None:
    trt.dla_cores = 2
    run(trt, toy_prepared(tmp_path / "toy.onnx", "fp16"), "fp16", dla_core=1)
    ((device,),) = trt.called("IBuilderConfig.default_device_type=")
    assert device.name == "DLA"
    assert trt.called("IBuilderConfig.DLA_core=") == [(1,)]
    # Up to 10 a DLA is told its precision by flags, so the network must not be strongly typed.
    assert flags(trt) == {"GPU_FALLBACK", *(["FP16"] if trt.major < 11 else [])}
    adjusted = [flag.name for (flag,) in trt.called("OnnxParser.set_flag")]
    assert adjusted == (["ADJUST_FOR_DLA"] if trt.major >= 11 else [])


def test_no_such_dla_core(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = toy_prepared(tmp_path / "toy.onnx", "fp16")
    with pytest.raises(UserError, match=r"no DLA core 0: TensorRT .* sees 0 on this machine"):
        run(trt, path, "fp16", dla_core=0)
    with pytest.raises(UserError, match="a DLA computes in FP16 or INT8"):
        Api(trt).check("fp32", BuildSettings(dla_core=0), calibrated=False)
    if trt.major < 11:
        with pytest.raises(UserError, match="from a calibrator, not from Q/DQ nodes"):
            Api(trt).check("int8", BuildSettings(precision="int8", dla_core=0), calibrated=False)


# -- timing cache --------------------------------------------------------------------------------


def test_layer_times_are_kept(trt: TensorRTDouble, plain: Path, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "times"
    _, notes = run(trt, plain, timing_cache=cache)
    assert cache.read_bytes() == b"double timing cache"
    assert trt.called("IBuilderConfig.create_timing_cache") == [(b"",)]
    run(trt, plain, timing_cache=cache)
    assert trt.called("IBuilderConfig.create_timing_cache")[1:] == [(b"double timing cache",)]
    assert notes == []


@pytest.mark.parametrize("data", [b"garbage", b"double, of another: other GPU"], ids=["damaged", "foreign"])
def test_layer_times_of_elsewhere_are_no_harm(
    trt: TensorRTDouble, plain: Path, tmp_path: Path, data: bytes
) -> None:
    cache = tmp_path / "times"
    cache.write_bytes(data)
    _, notes = run(trt, plain, timing_cache=cache)
    assert notes == [f"the timing cache {cache} is damaged or of another GPU or TensorRT; it is started anew"]
    assert cache.read_bytes() == b"double timing cache"


def test_layer_times_that_cannot_be_written_do_not_cost_the_engine(
    trt: TensorRTDouble, plain: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    data, notes = run(trt, plain, timing_cache=tmp_path / "file" / "times")
    assert data.startswith(b"double engine")
    (note,) = notes
    assert note.startswith("layer times were not kept: cannot write")


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("builder", r"cannot start a build: CUDA initialization failure with error: 35"),
        ("parse", r"cannot read toy\.onnx: CUDA initialization failure with error: 35"),
        ("build", r"cannot build toy\.onnx: CUDA initialization failure with error: 35"),
    ],
)
def test_tensorrts_own_words(trt: TensorRTDouble, plain: Path, step: str, words: str) -> None:
    """The first complaint, in one line: what follows it is only its consequence."""
    trt.refuse[step] = "CUDA initialization failure\n with error: 35"
    with pytest.raises(UserError, match=rf"TensorRT {trt.__version__} {words}") as caught:
        run(trt, plain)
    assert "\n" not in str(caught.value)


def test_a_failed_build_keeps_the_old_layer_times(trt: TensorRTDouble, plain: Path, tmp_path: Path) -> None:
    cache = tmp_path / "times"
    cache.write_bytes(b"double of before")
    trt.refuse["build"] = "out of memory"
    with pytest.raises(UserError, match="out of memory"):
        run(trt, plain, timing_cache=cache)
    assert cache.read_bytes() == b"double of before"


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("8.5.2", "TensorRT 8.5.2 is not supported; 8.6, 10 and 11 are"),
        ("12.0.0", "TensorRT 12.0.0 is not supported; 8.6, 10 and 11 are"),
        ("10.2.0.19", "TensorRT 10.2.0.19 miscompiles networks; take 10.3 or newer"),
    ],
)
def test_versions_that_are_refused(trt: TensorRTDouble, version: str, words: str) -> None:
    trt.__version__ = version
    with pytest.raises(UserError) as caught:
        Api(trt)
    assert str(caught.value) == words


# -- progress ------------------------------------------------------------------------------------


def test_progress_is_shown_where_tensorrt_tells_it(trt: TensorRTDouble, plain: Path) -> None:
    seen: list[tuple[str, int]] = []

    def progress(items: Any, label: str) -> Any:
        for item in items:
            seen.append((label, item))
            yield item

    run(trt, plain, progress=progress)
    assert seen == ([] if trt.major < 10 else [("building engine", step) for step in range(3)])


def test_ctrl_c_stops_a_build(trt: TensorRTDouble, plain: Path, tmp_path: Path) -> None:
    """In TensorRT's own way: an exception thrown through it would be lost."""
    if trt.major < 10:
        pytest.skip("8.6 builds cannot be stopped")

    def progress(items: Any, label: str) -> Any:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trt, plain, progress=progress, timing_cache=tmp_path / "times")
    assert not (tmp_path / "times").exists()
