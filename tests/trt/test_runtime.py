"""The runtime on doubles of every version: names, buffers, batches, graphs, and words when it fails."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab import imaging
from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.export.trt_settings import TrtSettings
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.on_tensorrt import TensorRTRuntime
from edge_deeplab.runtimes.trt_engine import LANES
from edge_deeplab.runtimes.trt_sidecar import read_engine, write_sidecar
from tests.runtimes.artefacts import picture
from tests.trt.cuda_double import CudaDouble, Error
from tests.trt.double import TensorRTDouble
from tests.trt.engines import make_engine

ANY = TrtSettings(batch=(1, 2, 4))


def forget(trt: TensorRTDouble) -> None:
    """What was called while building is of no interest."""
    trt.calls.clear()
    trt.cuda.calls.clear()


def reseal(path: Path, data: bytes) -> None:
    """Put another engine behind a sidecar, with the right hash: what only a bug could do."""
    _, record = read_engine(path)
    path.write_bytes(data)
    write_sidecar(path, dataclasses.replace(record, engine_sha256=hashlib.sha256(data).hexdigest()))


def enqueued(trt: TensorRTDouble) -> int:
    return len(trt.called("IExecutionContext.execute_async_v3"))


def launched(cuda: CudaDouble) -> int:
    return sum(name == "cudaGraphLaunch" for name, _ in cuda.calls)


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["logits", "logits-full", "probability", "classmap"])
def test_the_same_answers_as_the_graph(trt: TensorRTDouble, tmp_path: Path, head: str) -> None:
    path = make_engine(tmp_path, head=head)
    frame = picture(70, 110)
    with open_model(path) as engine, open_model(tmp_path / "toy.onnx") as graph:
        for _ in range(3):
            np.testing.assert_array_equal(engine.segment(frame).labels, graph.segment(frame).labels)
        tensor = imaging.preprocess(frame, graph.contract)
        np.testing.assert_array_equal(engine.infer(tensor), graph.infer(tensor))


def test_tensors_go_by_name(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    forget(trt)
    with open_model(path) as model:
        model.segment(picture(8, 8))
    bound = dict(trt.called("IExecutionContext.set_tensor_address"))
    assert set(bound) == {"image", "logits"}
    assert len(set(bound.values())) == 2


def test_memory_is_pinned_and_made_once(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    forget(trt)
    with open_model(path) as model:
        for _ in range(5):
            model.segment(picture(8, 8))
    names = [name for name, _ in trt.cuda.calls]
    assert names.count("cudaHostAlloc") == names.count("cudaMalloc") == 2
    assert names.count("cudaFreeHost") == names.count("cudaFree") == 2
    assert names.count("cudaMemcpyAsync") == 4  # the first run, and the recording of the graph
    assert names[-1] == "cudaStreamDestroy"


def test_a_graph_is_recorded_once_and_replayed(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    forget(trt)
    with open_model(path) as model:
        for _ in range(4):
            model.segment(picture(8, 8))
        assert model.describe()["cuda graph"] == "yes"
    assert enqueued(trt) == 2  # once to finish setting up, once while recording
    assert launched(trt.cuda) == 4


def test_watched_runs_are_timed_on_the_gpu(trt: TensorRTDouble, tmp_path: Path) -> None:
    """Copy, inference, copy back: a millisecond each on the double."""
    path = make_engine(tmp_path)
    with open_model(path) as model:
        assert isinstance(model, TensorRTRuntime)
        tensor = imaging.preprocess(picture(8, 8), model.contract)
        plain = model.infer(tensor)
        assert model.accelerator_ms is None
        model.watch_accelerator()
        for _ in range(2):
            np.testing.assert_array_equal(model.infer(tensor), plain)
            assert model.accelerator_ms == 3


def test_without_graphs(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    forget(trt)
    with open_model(path, cuda_graph=False) as model, open_model(path) as other:
        frame = picture(50, 60)
        for _ in range(3):
            np.testing.assert_array_equal(model.segment(frame).labels, other.segment(frame).labels)
        assert model.describe()["cuda graph"] == "no: switched off"


def test_a_graph_that_cannot_be_recorded_is_done_without(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    trt.cuda.capturable = False
    frame = picture(50, 60)
    with open_model(path) as model, open_model(tmp_path / "toy.onnx") as graph:
        for _ in range(3):
            np.testing.assert_array_equal(model.segment(frame).labels, graph.segment(frame).labels)
        assert "cudaStreamEndCapture" in model.describe()["cuda graph"]
    assert launched(trt.cuda) == 0


# -- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_any_number_of_frames(trt: TensorRTDouble, tmp_path: Path, count: int) -> None:
    """More than the largest batch are run in several goes."""
    path = make_engine(tmp_path, settings=ANY, dynamic=("batch",))
    frames = [picture(40 + n, 50, seed=n) for n in range(count)]
    with open_model(path) as engine, open_model(tmp_path / "toy.onnx") as graph:
        for _ in range(2):
            answers = engine.segment_batch(frames)
            for frame, answer in zip(frames, answers, strict=True):
                np.testing.assert_array_equal(answer.labels, graph.segment(frame).labels)


def test_fewer_frames_than_the_smallest_batch(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path, settings=TrtSettings(batch=(2, 3, 4)), dynamic=("batch",))
    frame = picture(40, 50)
    with open_model(path) as engine, open_model(tmp_path / "toy.onnx") as graph:
        np.testing.assert_array_equal(engine.segment(frame).labels, graph.segment(frame).labels)
        assert engine.infer(imaging.preprocess(frame, graph.contract)).shape[0] == 1


def test_every_batch_size_has_its_own_context_and_graph(trt: TensorRTDouble, tmp_path: Path) -> None:
    """A graph replays the shapes its context had: one context for all would answer with another's."""
    path = make_engine(tmp_path, settings=ANY, dynamic=("batch",))
    forget(trt)
    one, three = [picture(30, 40)], [picture(30, 40, seed=n) for n in range(3)]
    with open_model(path) as model:
        for frames in (one, three, one, three, one):
            model.segment_batch(frames)
    assert len(trt.called("ICudaEngine.create_execution_context")) == 2
    # The first context of an engine has its profile; every other must be given it.
    assert len(trt.called("IExecutionContext.set_optimization_profile_async")) == 1
    shapes = [shape for _, shape in trt.called("IExecutionContext.set_input_shape")]
    assert shapes == [(1, 3, 64, 96), (3, 3, 64, 96)]


def test_contexts_do_not_pile_up(trt: TensorRTDouble, tmp_path: Path) -> None:
    largest = LANES + 3
    settings = TrtSettings(batch=(1, 1, largest))
    path = make_engine(tmp_path, settings=settings, dynamic=("batch",))
    frames = [picture(10, 12, seed=n) for n in range(largest)]
    with open_model(path) as model:
        for count in (*range(1, largest + 1), 1):
            model.segment_batch(frames[:count])
        assert len(trt.cuda.graphs) == LANES


# -- what fails ----------------------------------------------------------------------------------


def test_without_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trt: TensorRTDouble) -> None:
    path = make_engine(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtra) as caught:
        open_model(path)
    for words in ("TensorRT is not installed", "apt install python3-libnvinfer", "edge-deeplab[trt]"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_cuda_bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trt: TensorRTDouble) -> None:
    path = make_engine(tmp_path)
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"cuda is not installed; cure: pip install 'edge-deeplab\[trt\]'"):
        open_model(path)


def test_without_a_gpu_tensorrt_never_sees_the_engine(trt: TensorRTDouble, tmp_path: Path) -> None:
    """TensorRT 11.4 crashes when it deserialises without one; see test_lean.py."""
    path = make_engine(tmp_path)
    forget(trt)
    trt.cuda.failures["cudaGetDeviceCount"] = Error.cudaErrorInsufficientDriver
    with pytest.raises(UserError, match="the GPU cannot be used: CUDA driver version is insufficient"):
        open_model(path)
    assert trt.calls == []


@pytest.mark.parametrize(
    ("device", "words"), [(1, "no GPU 1: CUDA sees 1"), ("cpu", "device 'cpu' is no GPU")]
)
def test_another_device(trt: TensorRTDouble, tmp_path: Path, device: Any, words: str) -> None:
    path = make_engine(tmp_path)
    with pytest.raises(UserError, match=words):
        open_model(path, device=device)


@pytest.mark.parametrize("device", [0, "0", "cuda", "cuda:0"])
def test_names_of_the_first_gpu(trt: TensorRTDouble, tmp_path: Path, device: Any) -> None:
    with open_model(make_engine(tmp_path), device=device) as model:
        assert model.describe()["device"] == "Orin, compute capability 8.7"


def test_an_engine_of_another_version_is_not_tried(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    forget(trt)
    built, trt.__version__ = trt.__version__, "9.9.9"
    with pytest.raises(UserError, match=rf"built by TensorRT {built}, here is 9\.9\.9"):
        open_model(path)
    assert trt.calls == []


def test_an_engine_of_another_gpu_is_not_tried(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    forget(trt)
    trt.cuda._name, trt.cuda._capability = "NVIDIA GeForce RTX 4090", (8, 9)
    with pytest.raises(UserError, match=r"built on Orin .* here is NVIDIA GeForce RTX 4090 \(compute"):
        open_model(path)
    assert trt.calls == []


def test_an_engine_of_a_cousin_is_run_with_a_warning(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    trt.cuda._name = "Orin Nano"
    with pytest.warns(UserWarning, match="one built here may be faster"), open_model(path) as model:
        model.segment(picture(8, 8))


def test_a_version_compatible_engine(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path, settings=TrtSettings(version_compatible=True))
    first, _, rest = trt.__version__.partition(".")
    trt.__version__ = f"{first}.{int(rest.split('.')[0]) + 1}.0"
    forget(trt)
    with open_model(path) as model:
        model.segment(picture(8, 8))
    assert trt.called("Runtime.engine_host_code_allowed=") == [(True,)]


def test_host_code_is_only_allowed_where_it_is_needed(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    forget(trt)
    open_model(path).close()
    assert trt.called("Runtime.engine_host_code_allowed=") == [(False,)]


def test_an_engine_for_a_dla_core(trt: TensorRTDouble, tmp_path: Path) -> None:
    trt.dla_cores = 2
    path = make_engine(tmp_path, "fp16", settings=TrtSettings(dla_core=1))
    forget(trt)
    with open_model(path) as model:
        assert model.describe()["dla core"] == "1"
    names = trt.names()
    assert trt.called("Runtime.DLA_core=") == [(1,)]
    assert names.index("Runtime.DLA_core=") < names.index("Runtime.deserialize_cuda_engine")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("runtime", "TensorRT cannot start: out of everything"),
        ("context", "no execution context: out of everything"),
        ("enqueue", "inference failed: out of everything"),
    ],
)
def test_tensorrts_own_words(trt: TensorRTDouble, tmp_path: Path, step: str, words: str) -> None:
    path = make_engine(tmp_path)
    trt.refuse[step] = "out of\n everything"
    with pytest.raises(UserError, match=words), open_model(path) as model:
        model.segment(picture(8, 8))


def test_an_engine_that_tensorrt_refuses(trt: TensorRTDouble, tmp_path: Path) -> None:
    path = make_engine(tmp_path)
    reseal(path, b"garbage")
    with pytest.raises(UserError, match=r"was refused by TensorRT .*: Serialization assertion"):
        open_model(path)


def test_an_engine_that_is_not_what_its_contract_says(trt: TensorRTDouble, tmp_path: Path) -> None:
    other = make_engine(tmp_path, head="classmap").read_bytes()
    path = make_engine(tmp_path)
    reseal(path, other)
    with pytest.raises(UserError, match=r"its output is uint8 \[1, 64, 96\], its contract says float32"):
        open_model(path)


def test_a_wrong_tensor(trt: TensorRTDouble, tmp_path: Path) -> None:
    with open_model(make_engine(tmp_path)) as model:
        for tensor in (np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 3, 64, 96), np.uint8)):
            with pytest.raises(UserError, match=r"takes float32 \[1, 3, 64, 96\], not"):
                model.infer(tensor)


def test_a_closed_engine_is_never_run(trt: TensorRTDouble, tmp_path: Path) -> None:
    model = open_model(make_engine(tmp_path))
    model.segment(picture(8, 8))
    model.close()
    with pytest.raises(UserError, match="was closed"):
        model.infer(imaging.preprocess(picture(8, 8), model.contract))
    model.close()
