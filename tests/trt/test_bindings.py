"""Every name of TensorRT's API that the project uses, held against the compiled bindings of four versions.

The bindings are downloaded (a megabyte each) and imported over libraries without content, so that
classes, signatures and enums are the real ones. Where they cannot be had, these tests skip; the double
of the other tests is built from ``api.json``, which was written from the same bindings.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.trt.bindings import DUMP, FUNCTIONS, WHEELS, Bindings, Unavailable, bindings, table
from tests.trt.conftest import VERSIONS
from tests.trt.double import DOUBLED

ROOT = Path(__file__).resolve().parents[2]

SOURCES = [
    ROOT / "export" / "trt_builder.py",
    ROOT / "export" / "trt_calibrator.py",
    ROOT / "runtimes" / "trt_engine.py",
    ROOT / "runtimes" / "on_tensorrt.py",
]

ALL = VERSIONS
UP_TO_10 = ("8.6.1", "10.3.0", "10.16.1.11")
FROM_10 = ("10.3.0", "10.16.1.11", "11.4.0.106")
NEWEST = ("10.16.1.11", "11.4.0.106")

CLASSES = {
    "Builder": ALL,
    "IInt8EntropyCalibrator2": UP_TO_10,
    "IInt8MinMaxCalibrator": UP_TO_10,
    "ILogger": ALL,
    "IProgressMonitor": FROM_10,
    "OnnxParser": ALL,
    "Runtime": ALL,
}

ATTRIBUTES = {
    "Builder.build_serialized_network": ALL,
    "Builder.create_builder_config": ALL,
    "Builder.create_network": ALL,
    "Builder.create_optimization_profile": ALL,
    "Builder.num_DLA_cores": ALL,
    "IBuilderConfig.DLA_core": ALL,
    "IBuilderConfig.add_optimization_profile": ALL,
    "IBuilderConfig.clear_flag": ALL,
    "IBuilderConfig.create_timing_cache": ALL,
    "IBuilderConfig.default_device_type": ALL,
    "IBuilderConfig.get_timing_cache": ALL,
    "IBuilderConfig.hardware_compatibility_level": ALL,
    "IBuilderConfig.int8_calibrator": UP_TO_10,
    "IBuilderConfig.progress_monitor": FROM_10,
    "IBuilderConfig.set_calibration_profile": UP_TO_10,
    "IBuilderConfig.set_flag": ALL,
    "IBuilderConfig.set_memory_pool_limit": ALL,
    "IBuilderConfig.set_preview_feature": ALL,
    "IBuilderConfig.set_timing_cache": ALL,
    "ICudaEngine.create_execution_context": ALL,
    "ICudaEngine.get_tensor_dtype": ALL,
    "ICudaEngine.get_tensor_mode": ALL,
    "ICudaEngine.get_tensor_name": ALL,
    "ICudaEngine.get_tensor_shape": ALL,
    "ICudaEngine.num_io_tensors": ALL,
    "IExecutionContext.execute_async_v3": ALL,
    "IExecutionContext.set_input_shape": ALL,
    "IExecutionContext.set_optimization_profile_async": ALL,
    "IExecutionContext.set_tensor_address": ALL,
    "IInt8EntropyCalibrator2.get_batch": UP_TO_10,
    "IInt8EntropyCalibrator2.get_batch_size": UP_TO_10,
    "IInt8EntropyCalibrator2.read_calibration_cache": UP_TO_10,
    "IInt8EntropyCalibrator2.write_calibration_cache": UP_TO_10,
    "ILogger.log": ALL,
    "INetworkDefinition.get_input": ALL,
    "IOptimizationProfile.set_shape": ALL,
    "IProgressMonitor.phase_finish": FROM_10,
    "IProgressMonitor.phase_start": FROM_10,
    "IProgressMonitor.step_complete": FROM_10,
    "ITensor.name": ALL,
    "ITensor.shape": ALL,
    "ITimingCache.serialize": ALL,
    "OnnxParser.get_error": ALL,
    "OnnxParser.num_errors": ALL,
    "OnnxParser.parse": ALL,
    "OnnxParser.set_flag": ALL,
    "ParserError.desc": ALL,
    "Runtime.DLA_core": ALL,
    "Runtime.deserialize_cuda_engine": ALL,
    "Runtime.engine_host_code_allowed": ALL,
}

MEMBERS = {
    "BuilderFlag.FP16": UP_TO_10,
    "BuilderFlag.GPU_FALLBACK": ALL,
    "BuilderFlag.INT8": UP_TO_10,
    "BuilderFlag.TF32": ALL,
    "BuilderFlag.VERSION_COMPATIBLE": ALL,
    "DeviceType.DLA": ALL,
    "HardwareCompatibilityLevel.AMPERE_PLUS": ALL,
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": NEWEST,
    "ILogger.Severity.ERROR": ALL,
    "ILogger.Severity.INTERNAL_ERROR": ALL,
    "ILogger.Severity.WARNING": ALL,
    "MemoryPoolType.WORKSPACE": ALL,
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": UP_TO_10,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": FROM_10,
    "OnnxParserFlag.ADJUST_FOR_DLA": NEWEST,
    "PreviewFeature.PROFILE_SHARING_0806": UP_TO_10,
    "TensorIOMode.INPUT": ALL,
    "TensorIOMode.OUTPUT": ALL,
}

KINDS = ("FLOAT", "HALF", "INT8", "UINT8", "INT32")
"""Members of ``DataType`` that ``trt_engine.DTYPES`` knows by name."""

OURS = {"dtype", "name", "shape", "path", "reset", "serialize", "stream"}
"""Names that Python, numpy or the project's own records have too; not every use of them is TensorRT's."""


def present(record: dict[str, Any]) -> set[str]:
    """Everything a version has, as ``Class``, ``Class.attribute`` and ``Enum.MEMBER``."""
    found = set(record["classes"])
    for kind in ("classes", "enums"):
        found |= {f"{name}.{inner}" for name, inners in record[kind].items() for inner in inners}
    return found


# -- the adapter against the table ---------------------------------------------------------------


def names_in_sources() -> set[str]:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)  # methods that TensorRT calls
    return found


def test_every_name_that_is_used_is_listed_above() -> None:
    """A new call in the adapter must be looked up in all versions before this passes again."""
    known = {name.rpartition(".")[2] for version in VERSIONS for name in present(table(version))}
    known |= {name for version in VERSIONS for name in table(version)["enums"]}
    used = (names_in_sources() & known) - OURS - {"__init__"}
    enums = {name.rpartition(".")[0].rpartition(".")[2] for name in MEMBERS}
    listed = {name.rpartition(".")[2] for name in (*CLASSES, *ATTRIBUTES, *MEMBERS)} | enums
    assert used - listed == set()
    assert {name.rpartition(".")[2] for name in (*CLASSES, *ATTRIBUTES, *MEMBERS)} - OURS <= used


@pytest.mark.parametrize("version", VERSIONS)
def test_what_each_version_has(version: str) -> None:
    there = present(table(version))
    for name, versions in {**CLASSES, **ATTRIBUTES, **MEMBERS}.items():
        assert (name in there) == (version in versions), name
    assert set(KINDS) <= set(table(version)["enums"]["DataType"])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_set_can_be_set(version: str) -> None:
    classes = table(version)["classes"]
    for name in (
        "IBuilderConfig.DLA_core",
        "IBuilderConfig.default_device_type",
        "IBuilderConfig.hardware_compatibility_level",
        "IBuilderConfig.int8_calibrator",
        "IBuilderConfig.progress_monitor",
        "Runtime.DLA_core",
        "Runtime.engine_host_code_allowed",
    ):
        kind, _, attribute = name.partition(".")
        if version in ATTRIBUTES[name]:
            assert classes[kind][attribute] == "rw", name


def test_the_double_has_nothing_that_no_version_has() -> None:
    for kind, names in DOUBLED.items():
        anywhere = {n for v in VERSIONS for n in table(v)["classes"].get(kind, {})}
        assert names <= anywhere, kind


# -- the table and the adapter against the compiled bindings -------------------------------------


@pytest.fixture(scope="module", params=WHEELS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    """The compiled bindings of a version."""
    try:
        return bindings(request.param, tmp_path_factory.getbasetemp())
    except Unavailable as error:
        pytest.skip(str(error))


def run(real: Bindings, script: str) -> str:
    done = real.python("import sys, tensorrt_bindings as trt\nsys.modules['tensorrt'] = trt\n" + script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_is_what_the_bindings_say(real: Bindings) -> None:
    done = real.python(DUMP)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == table(real.version)


def test_the_bindings_are_of_the_version_they_claim(real: Bindings) -> None:
    script = "from edge_deeplab.export.trt_builder import Api\nprint(trt.__version__, Api(trt).major)"
    assert run(real, script).split() == [real.version, real.version.partition(".")[0]]


def test_our_logger_can_be_derived_and_called(real: Bindings) -> None:
    """And a builder that cannot start says why: the stand-in factory answers null, as without a GPU."""
    script = """
from edge_deeplab.runtimes.trt_engine import make_logger
log = make_logger(trt)
kinds = trt.ILogger.Severity
for kind in (kinds.ERROR, kinds.INTERNAL_ERROR, kinds.WARNING, kinds.INFO, kinds.VERBOSE):
    log.log(kind, kind.name)
print(log.complaints, log.doubts)
try:
    trt.Builder(log)
except TypeError as error:
    print(error)
"""
    assert run(real, script).splitlines() == [
        "['ERROR', 'INTERNAL_ERROR'] ['WARNING']",
        "pybind11::init(): factory function returned nullptr",
    ]


def test_a_build_that_cannot_start_is_one_line(real: Bindings) -> None:
    script = """
from edge_deeplab.errors import UserError
from edge_deeplab.export.base import silent
from edge_deeplab.export.trt_builder import Api, BuildSettings, build
try:
    build(Api(trt), b"", BuildSettings(), graph="fp32", source="x", progress=silent, note=print)
except UserError as error:
    print(error)
"""
    assert run(real, script) == (f"TensorRT {real.version} cannot start a build: TensorRT gave no reason\n")


def test_our_progress_monitor_can_be_derived(real: Bindings) -> None:
    script = """
from edge_deeplab.export.base import silent
from edge_deeplab.export.trt_builder import Api
monitor = Api(trt).monitor(silent)
if monitor is not None:
    assert isinstance(monitor, trt.IProgressMonitor)
    monitor.phase_start("Building", None, 2)
    print(monitor.step_complete("Building", 0), monitor.stopped)
    monitor.phase_finish("Building")
"""
    assert run(real, script).split() == ([] if real.version == "8.6.1" else ["True", "False"])


def test_our_calibrators_can_be_derived(real: Bindings) -> None:
    script = """
import types
from edge_deeplab.export.base import silent
from edge_deeplab.export.calibration import Calibration
from edge_deeplab.export.trt_builder import Api
from edge_deeplab.export.trt_calibrator import make_calibrator
from edge_deeplab.spec import PERSON_CLASSES, InputContract
contract = InputContract("toy", "lite", 32, 32, classes=PERSON_CLASSES)
device = types.SimpleNamespace(name="none", capability=(0, 0))
for method in ("entropy", "minmax"):
    made = make_calibrator(Api(trt), method, Calibration("nothing", ()), contract, graph="g", device=device,
                           progress=silent, note=print)
    print(type(made).__mro__[1].__name__, made.get_algorithm().name, made.get_batch_size(),
          made.get_batch(["image"]))
"""
    if real.version not in UP_TO_10:
        pytest.skip("11 has no calibrators")
    assert run(real, script).splitlines() == [
        "IInt8EntropyCalibrator2 ENTROPY_CALIBRATION_2 1 None",
        "IInt8MinMaxCalibrator MINMAX_CALIBRATION 1 None",
    ]


def test_a_calibration_profile_is_not_the_engines_own(real: Bindings) -> None:
    """TensorRT writes over the smallest and largest shape of the profile that it calibrates with."""
    if real.version not in UP_TO_10:
        pytest.skip("11 has no calibrators")
    said = run(real, "print(trt.IBuilderConfig.set_calibration_profile.__doc__)")
    assert "MAX values will be overwritten by" in said


def test_flags_are_shifted_numbers(real: Bindings) -> None:
    script = """
from edge_deeplab.export.trt_builder import Api
api = Api(trt)
print(api.network_flags(strongly_typed=False), api.network_flags(strongly_typed=api.major > 8))
"""
    expected = {"8": "1 1", "10": "0 2", "11": "0 1"}[real.version.partition(".")[0]]
    assert run(real, script).strip() == expected


def test_the_stand_ins_hold_factories_only() -> None:
    """What is missing in them would have been an import error; what they hold computes nothing."""
    assert len(FUNCTIONS) == 13
