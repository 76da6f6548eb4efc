"""TensorRT's builder, 8.6 to 11: every difference between the versions stands once, in :class:`Api`.

What is common to all of them is :func:`build`, which reads top-down as TensorRT's own samples do.
``tests/trt/test_bindings.py`` holds every name used here against the compiled bindings of
8.6.1, 10.3, 10.16 and 11.4. No GPU has run it yet (docs/tensorrt.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_deeplab.errors import UserError
from edge_deeplab.export.base import Progress
from edge_deeplab.files import read_bytes, write_bytes
from edge_deeplab.runtimes.trt_engine import make_logger
from edge_deeplab.runtimes.trt_sidecar import Hardware, version_of

Note = Callable[[str], None]
"""Takes one line for the user: a doubt, not an error."""

GraphPrecision = Literal["fp32", "fp16", "int8"]
"""What a prepared graph computes in: float32, float16 tensors, or Q/DQ nodes around int8."""

KNOWN_BAD: dict[tuple[int, ...], str] = {(10, 2, 0): "miscompiles networks; take 10.3 or newer"}


class BuildError(UserError):
    """TensorRT refused a graph or a setting."""


@dataclass(frozen=True)
class BuildSettings:
    """What the user asked of the builder.

    Attributes:
        precision: Of the engine.
        batch: Smallest, best and largest batch; used where the graph's batch is dynamic.
        workspace_mib: Limit of scratch memory while layers are timed; None: TensorRT's own, all there is.
        timing_cache: File of measured layer times that later builds start from.
        dla_core: DLA core to run on, what it cannot do on the GPU; None: the GPU alone.
        hardware: GPUs the engine shall run on.
        version_compatible: Let later TensorRT versions read the engine.
    """

    precision: GraphPrecision = "fp32"
    batch: tuple[int, int, int] = (1, 1, 1)
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    dla_core: int | None = None
    hardware: Hardware = "same-gpu"
    version_compatible: bool = False


class Api:
    """TensorRT's builder as this version has it.

    Args:
        trt: The ``tensorrt`` module.

    Raises:
        UserError: A version that is too old, too new to be known, or known to be broken.
    """

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.version = version_of(trt.__version__)
        self.major = self.version[0]
        if not (8, 6) <= self.version < (12,):
            raise UserError(f"TensorRT {trt.__version__} is not supported; 8.6, 10 and 11 are")
        if self.version[:3] in KNOWN_BAD:
            raise UserError(f"TensorRT {trt.__version__} {KNOWN_BAD[self.version[:3]]}")

    @property
    def weakly_typed(self) -> bool:
        """Builder flags choose the precision; from 11 on only the graph does."""
        return self.major < 11

    def network_flags(self, *, strongly_typed: bool) -> int:
        """For ``create_network``. Batch was optional until 8; the flag is gone in 11."""
        flags = self.trt.NetworkDefinitionCreationFlag
        if self.major < 10:
            return 1 << int(flags.EXPLICIT_BATCH)
        return 1 << int(flags.STRONGLY_TYPED) if strongly_typed else 0

    def strongly_typed(self, graph: GraphPrecision, settings: BuildSettings) -> bool:
        """FP16 graphs are built as written where that exists; DLA up to 10 wants the flags."""
        return not self.weakly_typed or (self.major >= 10 and graph == "fp16" and settings.dla_core is None)

    def check(self, graph: GraphPrecision, settings: BuildSettings, *, calibrated: bool) -> None:
        """Refuse what this version cannot build, with the way that leads there.

        Args:
            graph: What the graph computes in.
            settings: What is asked for.
            calibrated: A calibrator will measure INT8 ranges during the build.
        """
        asked, here = settings.precision, f"TensorRT {self.trt.__version__}"
        if calibrated and not self.weakly_typed:
            raise UserError(
                f"{here} has no calibrators; leave --calibrator away and prepare the model with --int8"
            )
        if calibrated and graph == "int8":
            raise UserError(
                "the graph has its INT8 ranges already; leave --calibrator away, or give one prepared "
                "without --int8"
            )
        if graph == "int8" and asked != "int8":
            raise UserError(f"the graph is INT8, an engine in {asked} needs one prepared without --int8")
        if asked == "int8" and graph != "int8" and not calibrated:
            way = ", or give --calibrator entropy" if self.weakly_typed else ""
            raise UserError(f"the graph has no INT8 ranges: prepare it with --int8{way}")
        if graph == "fp16" and asked == "fp32":
            raise UserError("the graph is float16: an engine in fp32 needs one prepared without --fp16")
        if graph == "fp32" and asked == "fp16" and not self.weakly_typed:
            raise UserError(f"{here} takes precision from the graph alone: prepare the model with --fp16")
        if settings.hardware == "same-compute-capability" and self.version < (10, 9):
            raise UserError(
                f"{here} has no --hardware same-compute-capability; 10.9 and newer have, "
                "ampere-plus is in all"
            )
        if settings.dla_core is not None:
            self._check_dla(graph, asked)

    def _check_dla(self, graph: GraphPrecision, asked: GraphPrecision) -> None:
        if asked == "fp32":
            raise UserError("a DLA computes in FP16 or INT8: add --fp16 or --int8")
        if graph == "int8" and self.weakly_typed:
            raise UserError(
                "up to TensorRT 10 a DLA takes INT8 ranges from a calibrator, not from Q/DQ nodes: give a "
                "graph prepared without --int8, and --int8 --calibrator entropy"
            )

    def set_precision(self, config: Any, precision: GraphPrecision, *, strongly_typed: bool) -> None:
        """Builder flags, where there are any. INT8 gets FP16 too: what stays float need not be slow."""
        flags = self.trt.BuilderFlag
        if precision == "fp32":
            config.clear_flag(flags.TF32)  # 10 bits of mantissa are not what fp32 promises
        if strongly_typed:
            return
        if precision in ("fp16", "int8"):
            config.set_flag(flags.FP16)
        if precision == "int8":
            config.set_flag(flags.INT8)

    def set_calibrator(self, config: Any, calibrator: Any, profile: Any) -> None:
        """Up to 10 only.

        Args:
            config: Of the build.
            calibrator: Gives the pictures.
            profile: Of one batch of them; None where the graph's batch is fixed. Not the engine's own:
                TensorRT reads as many pictures as its best batch, and sets its smallest and largest to it.
        """
        config.int8_calibrator = calibrator
        if profile is not None and not config.set_calibration_profile(profile):
            raise BuildError("TensorRT refused the calibration profile")

    def calibrator_class(self, method: Literal["entropy", "minmax"]) -> Any:
        """The base class to derive a calibrator from, up to 10 only."""
        trt = self.trt
        return {"entropy": trt.IInt8EntropyCalibrator2, "minmax": trt.IInt8MinMaxCalibrator}[method]

    def set_hardware(self, config: Any, hardware: Hardware) -> None:
        """GPUs other than the one at hand. One of the levels exists from 10.9 on."""
        levels = self.trt.HardwareCompatibilityLevel
        if hardware == "ampere-plus":
            config.hardware_compatibility_level = levels.AMPERE_PLUS
        elif hardware == "same-compute-capability":
            config.hardware_compatibility_level = levels.SAME_COMPUTE_CAPABILITY

    def share_profiles(self, config: Any) -> None:
        """Let several contexts use one profile; the rule from 10 on, a preview feature before."""
        if self.major < 10:
            config.set_preview_feature(self.trt.PreviewFeature.PROFILE_SHARING_0806, True)

    def adjust_for_dla(self, parser: Any) -> None:
        """11 rewrites what a DLA cannot take; earlier versions leave it to the GPU."""
        if self.major >= 11:
            parser.set_flag(self.trt.OnnxParserFlag.ADJUST_FOR_DLA)

    def monitor(self, progress: Progress) -> Any:
        """Shows the build's progress and lets Ctrl-C stop it; None in 8.6, which has no such thing."""
        return _monitor(self.trt, progress) if self.major >= 10 else None


def build(
    api: Api,
    onnx: bytes,
    settings: BuildSettings,
    *,
    graph: GraphPrecision,
    source: str,
    calibrator: Any = None,
    progress: Progress,
    note: Note,
) -> bytes:
    """An ONNX graph -> a serialised engine for the GPU at hand.

    Args:
        api: TensorRT.
        onnx: The prepared graph, with one input and one output.
        settings: What to build.
        graph: What the graph computes in.
        source: Its name, for messages.
        calibrator: See :mod:`edge_deeplab.export.trt_calibrator`; None for Q/DQ graphs and floats.
        progress: Shows progress.
        note: Told of a timing cache that cannot be used.

    Raises:
        UserError: TensorRT cannot start, read the graph or build it.
    """
    trt = api.trt
    api.check(graph, settings, calibrated=calibrator is not None)
    strongly_typed = api.strongly_typed(graph, settings)
    log = make_logger(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # pybind11's way to say that the factory returned null
        raise BuildError(f"TensorRT {trt.__version__} cannot start a build: {log.reason()}") from error

    network = builder.create_network(api.network_flags(strongly_typed=strongly_typed))
    parser = trt.OnnxParser(network, log)
    if settings.dla_core is not None:
        api.adjust_for_dla(parser)
    if not parser.parse(onnx):
        raise BuildError(f"TensorRT {trt.__version__} cannot read {source}: {_parser_reason(parser, log)}")

    config = builder.create_builder_config()
    api.set_precision(config, settings.precision, strongly_typed=strongly_typed)
    api.set_hardware(config, settings.hardware)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.dla_core is not None:
        _use_dla(trt, builder, config, settings.dla_core)
    given = network.get_input(0)
    if any(axis < 0 for axis in tuple(given.shape)[1:]):
        raise UserError("an engine has one input size: prepare the model with --size, not --dynamic size")
    dynamic = given.shape[0] < 0
    if dynamic:
        if config.add_optimization_profile(_profile(builder, given, settings.batch)) < 0:
            raise BuildError(f"TensorRT refused batch sizes {settings.batch}")
        api.share_profiles(config)
    if calibrator is not None:
        once = (calibrator.get_batch_size(),) * 3
        api.set_calibrator(config, calibrator, _profile(builder, given, once) if dynamic else None)
    if settings.timing_cache is not None:
        _load_timing_cache(config, settings.timing_cache, note)
    monitor = api.monitor(progress)
    if monitor is not None:
        config.progress_monitor = monitor

    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.stopped:
        raise KeyboardInterrupt
    if calibrator is not None and calibrator.failure is not None:
        raise calibrator.failure  # TensorRT only saw the calibration end early
    if plan is None:
        raise BuildError(f"TensorRT {trt.__version__} cannot build {source}: {log.reason()}")
    if settings.timing_cache is not None:
        _keep_timing_cache(config, settings.timing_cache, note)
    return bytes(plan)


def _parser_reason(parser: Any, log: Any) -> str:
    if parser.num_errors:
        return " ".join(str(parser.get_error(0).desc()).split())
    return str(log.reason())


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    cores = builder.num_DLA_cores
    if core >= cores:
        raise UserError(
            f"there is no DLA core {core}: TensorRT {trt.__version__} sees {cores} on this machine, numbered "
            "from 0 (Orin and Xavier have them, TensorRT up to 10.7 and from 11.4.1 drives them)"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _profile(builder: Any, given: Any, batch: tuple[int, int, int]) -> Any:
    """A range of batch sizes for the graph's input, smallest, best and largest."""
    profile = builder.create_optimization_profile()
    profile.set_shape(given.name, *((size, *tuple(given.shape)[1:]) for size in batch))
    return profile


def _load_timing_cache(config: Any, path: Path, note: Note) -> None:
    """Start from measured layer times; those of another GPU or TensorRT are no use, and no harm."""
    stored = read_bytes(path) if path.is_file() and path.stat().st_size else b""
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        note(f"the timing cache {path} is damaged or of another GPU or TensorRT; it is started anew")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timing_cache(config: Any, path: Path, note: Note) -> None:
    """For the next build. By now the engine is built, and worth more than these times."""
    try:
        write_bytes(path, bytes(config.get_timing_cache().serialize()))
    except UserError as error:
        note(f"layer times were not kept: {error}")


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """One bar for every outermost phase; TensorRT calls from its own threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self._bars: dict[str, Any] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._bars[phase_name] = iter(progress(range(num_steps), phase_name.lower()))

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Answer whether to go on. Python delivers Ctrl-C here, while TensorRT is in charge."""
            try:
                next(self._bars.get(phase_name, iter(())), None)
            except KeyboardInterrupt:
                self.stopped = True
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            for _ in self._bars.pop(phase_name, ()):
                pass

    return Monitor()
