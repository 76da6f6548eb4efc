"""Our models beside what a user would pick instead: quality and time, all in one run.

Time is that of a 640x480 webcam frame to a 640x480 mask, resizing, scaling and thresholding included.
Every model gets two frames in a row, the second is timed, then it is the next one's turn: clock, heat
and neighbours hit all alike, so the ratios hold even where the milliseconds do not. Every peer is fed
and read in the cheapest way we know that leaves its answer unchanged.

Needs ``pip install ai-edge-litert onnx onnxruntime tqdm`` and the folder ``../shared`` (see README.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring import (
    SHARED,
    Milliseconds,
    Rows,
    as_markdown,
    as_text,
    exit_status,
    interleaved,
    load_average,
    machine,
    paired_ratio,
    shared_folder,
    warn_if_busy,
)

from edge_deeplab.cli.arguments import bar, positive
from edge_deeplab.data import Split, open_split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import as_record, check_classes, evaluate
from edge_deeplab.files import sha256, write_text
from edge_deeplab.imaging import Floats, Frame, Labels
from edge_deeplab.metrics import Scores
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import Channels
from edge_deeplab.zoo import find, shipped

DATA = ("eg", "ccp_upper", "ccp_full")
FRAME = (480, 640)
WARMUP = 10
SCORES = {"fg": "pooled foreground IoU", "img": "mean of the pictures' IoU", "bnd": "boundary IoU"}

Segment = Callable[[Frame], Labels]
"""BGR uint8 (H, W, 3) -> 1 where a person is, uint8 (H, W)."""


# -- the peers -----------------------------------------------------------------------------------


def probability(raw: Floats) -> Floats:
    """One probability a pixel, whatever the shape around it, flat included -> (side, side)."""
    side = math.isqrt(raw.size)
    return raw.reshape(side, side)


def two_logits(raw: Floats) -> Floats:
    """Background and person (1, h, w, 2) -> how far person is ahead (h, w): the logit of its softmax."""
    return raw[0, ..., 1] - raw[0, ..., 0]


def two_planes(raw: Floats) -> Floats:
    """The same for (1, 2, h, w)."""
    return raw[0, 1] - raw[0, 0]


def voc_person(raw: Floats) -> Floats:
    """21 VOC logits (1, h, w, 21) -> how far person (15) is ahead of the best other class (h, w).

    Its sign says whether argmax answers person, and it can be resized, which an argmax cannot.
    """
    # Planes first: a maximum over rows of 21 is several times slower in numpy, transposing included.
    planes = cv2.transpose(raw.reshape(-1, raw.shape[-1]))
    person = planes[15].copy()
    planes[15] = -np.inf
    return (person - planes.max(axis=0)).reshape(raw.shape[1:3])


@dataclass(frozen=True)
class Peer:
    """A published model, and what must be known to feed it and to read its answer.

    Attributes:
        name: For tables.
        file: In ``peers/`` of the shared folder. TFLite files take (1, h, w, 3), ONNX files (1, 3, h, w).
        size: Side of the square input.
        mean, std: The input is ``(pixel - mean) / std``; one value for all channels, or one for each.
        scores: Raw output -> plane of person scores (h, w).
        cut: Score above which a pixel is person: 0.5 for probabilities, 0 for logits.
        channels: Order of the input's channels.
    """

    name: str
    file: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scores: Callable[[Floats], Floats]
    cut: float
    channels: Channels = "RGB"

    @property
    def factor(self) -> Floats:
        """``pixel * factor - offset`` is the input; float32, or float64 would run through it all."""
        return (1 / np.array(self.std)).astype(np.float32)

    @property
    def offset(self) -> Floats:
        """See :attr:`factor`."""
        return (np.array(self.mean) / np.array(self.std)).astype(np.float32)

    def resized(self, frame: Frame) -> Frame:
        """Frame -> uint8 (size, size, 3). Bilinear, as in the demos these models came with."""
        image: Any = cv2.resize(frame, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        # After the resize there are fewer pixels to reorder.
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if self.channels == "RGB" else image

    def labels(self, raw: Floats, height: int, width: int) -> Labels:
        """Raw output -> mask at the frame's size: scores are resized, then cut."""
        scores = cv2.resize(self.scores(raw), (width, height), interpolation=cv2.INTER_LINEAR)
        return (scores > np.float32(self.cut)).view(np.uint8)


PEERS = (
    Peer("slim 512", "slim_reshape_v2_512.tflite", 512, (0,), (255,), probability, 0.5),
    Peer(
        "sinet 320",
        "sinet_320.onnx",
        320,
        (107.3, 116.5, 124.7),
        (67 * 255, 62 * 255, 63 * 255),
        two_planes,
        0,
        channels="BGR",
    ),
    Peer("mnv3 256", "mnv3_seg_float.tflite", 256, (127.5,), (127.5,), two_logits, 0),
    Peer("mediapipe 256", "mediapipe_selfie_segmentation_256.tflite", 256, (0,), (255,), probability, 0.5),
    Peer("aiseg 513", "deeplab_mnv2_dm05_aiseg_513.tflite", 513, (127.5,), (127.5,), two_logits, 0),
    Peer("google 257", "google_deeplabv3_257_mv_gpu.tflite", 257, (127.5,), (127.5,), voc_person, 0),
)


def _on_litert(peer: Peer, path: Path, threads: int) -> Segment:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    interpreter = Interpreter(str(path), num_threads=threads)  # XNNPACK is its default on CPUs
    interpreter.allocate_tensors()
    # Both answer with views of the interpreter's own memory: nothing is copied in or out.
    source = interpreter.tensor(interpreter.get_input_details()[0]["index"])
    answer = interpreter.tensor(interpreter.get_output_details()[0]["index"])
    factor, offset = peer.factor, peer.offset

    def fill(image: Frame, tensor: Floats) -> None:
        np.multiply(image, factor, out=tensor)
        np.subtract(tensor, offset, out=tensor)

    def segment(frame: Frame) -> Labels:
        fill(peer.resized(frame), source()[0])
        interpreter.invoke()
        return peer.labels(answer(), *frame.shape[:2])

    return segment


def _on_onnxruntime(peer: Peer, path: Path, threads: int) -> Segment:
    import onnx
    import onnxruntime as ort

    # The file lists its weights as inputs too, which keeps ONNX Runtime from folding them. It says so
    # itself, in hundreds of warnings; a user who heeds them gets this.
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    tensor = np.empty((1, 3, peer.size, peer.size), np.float32)
    factor, offset = peer.factor, peer.offset

    def segment(frame: Frame) -> Labels:
        image = peer.resized(frame)
        for c in range(3):
            np.multiply(image[..., c], factor[c], out=tensor[0, c])
            tensor[0, c] -= offset[c]
        raw: Any = session.run(None, {name: tensor})[0]
        return peer.labels(raw, *frame.shape[:2])

    return segment


# -- everyone in one shape -----------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """Anything that turns a frame into a mask."""

    name: str
    runtime: str
    file: Path
    size: tuple[int, int]
    segment: Segment


def open_peer(peer: Peer, shared: Path, threads: int) -> Contender:
    """Load a peer.

    Raises:
        UserError: The file or the library that runs it is missing.
    """
    path = shared / "peers" / peer.file
    if not path.is_file():
        raise UserError(f"{path} is missing; see benchmarks/README.md for what --shared must hold")
    runtime, start = ("LiteRT", _on_litert) if path.suffix == ".tflite" else ("ONNX Runtime", _on_onnxruntime)
    try:
        segment = start(peer, path, threads)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0].replace("_", "-")
        raise UserError(f"{peer.name} needs {library}; cure: pip install {library}") from error
    return Contender(peer.name, runtime, path, (peer.size, peer.size), segment)


def open_ours(model: str, threads: int, split: Split) -> Contender:
    """Open a shipped model or a file of ours; a shipped name prefers its ONNX file.

    Raises:
        UserError: No such model, or its classes are not the data's.
    """
    path = find(model)
    runtime = open_model(path, threads=threads)
    contract = runtime.contract
    check_classes(contract, split)
    name = model if model in shipped() else path.name
    return Contender(
        name,
        runtime.title,
        path,
        (contract.height, contract.width),
        lambda frame: runtime.segment(frame).labels,
    )


def webcam_frames(shared: Path) -> list[Frame]:
    """The first frame of every clip, BGR (480, 640, 3).

    Raises:
        UserError: There are no clips, or one cannot be read.
    """
    frames: list[Frame] = []
    for path in sorted((shared / "video").glob("*.mkv")):
        clip = cv2.VideoCapture(str(path))
        read, frame = clip.read()
        clip.release()
        if not read or frame.shape[:2] != FRAME:
            raise UserError(f"{path} is no 640x480 clip that OpenCV can read")
        frames.append(frame.astype(np.uint8, copy=False))
    if not frames:
        raise UserError(f"no clips (*.mkv) in {shared / 'video'}")
    return frames


def splits(shared: Path, limit: int | None) -> list[Split]:
    """The validation pictures, at most ``limit`` of each set."""
    opened = [open_split(f"folder:{shared / 'data' / name}", "val") for name in DATA]
    return [dataclasses.replace(split, pairs=split.pairs[:limit]) for split in opened]


# -- report ----------------------------------------------------------------------------------------


def time_table(contenders: Sequence[Contender], times: Mapping[str, Milliseconds]) -> Rows:
    """Milliseconds and the ratio to the first model."""
    base = times[contenders[0].name]
    rows = [["model", "runs on", "input", "MB", "p50 ms", "p90 ms", "mean ms", "times the first (95 %)"]]
    for c in contenders:
        ms = times[c.name]
        figures = (np.percentile(ms, 50), np.percentile(ms, 90), ms.mean())
        ratio = "1" if c is contenders[0] else str(paired_ratio(ms, base))
        megabytes = f"{c.file.stat().st_size / 1e6:.1f}"
        size = f"{c.size[0]}x{c.size[1]}"
        rows.append([c.name, c.runtime, size, megabytes, *(f"{v:.2f}" for v in figures), ratio])
    return rows


def score_table(names: Sequence[str], scores: Mapping[str, Sequence[Scores]]) -> Rows:
    """Three figures for every data set, see ``SCORES``."""
    rows = [["model", *(f"{name} {what}" for name in DATA for what in SCORES)]]
    for name in names:
        figures = [v for s in scores[name] for v in (s.foreground_iou, s.image_iou, s.boundary_iou[1])]
        rows.append([name, *(f"{v:.4f}" for v in figures)])
    return rows


def versions() -> dict[str, str]:
    """Of the libraries that run the models."""
    found = {}
    for name in ("onnxruntime", "ai-edge-litert", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run(args: argparse.Namespace) -> None:
    """Open everyone, time them, score them, write the report."""
    shared = shared_folder(args.shared)
    data = splits(shared, args.data_limit)
    frames = webcam_frames(shared)
    cv2.setNumThreads(args.threads)
    contenders = [open_ours(model, args.threads, data[0]) for model in args.models]
    contenders += [open_peer(peer, shared, args.threads) for peer in PEERS]
    names = [c.name for c in contenders]
    if len(set(names)) < len(names):
        raise UserError(f"two models share a name in {', '.join(names)}; copy one to a name of its own")

    # Time first, while the load average still speaks of others only.
    warn_if_busy()
    load = load_average()

    def on_frames(segment: Segment) -> Callable[[int], Labels]:
        return lambda number: segment(frames[number % len(frames)])

    times = interleaved(
        {c.name: on_frames(c.segment) for c in contenders}, rounds=args.rounds, warmup=WARMUP, lead_in=1
    )
    load_after = load_average()

    scores: dict[str, list[Scores]] = {name: [] for name in names}
    for c in contenders:
        for split in data:
            progress = partial(bar, desc=f"{c.name} on {split.name}", unit="picture")
            scores[c.name].append(evaluate(c.segment, split, progress=progress))

    tables = {
        f"A 640x480 frame to its mask, {args.threads} thread{'s' * (args.threads > 1)}, "
        f"{args.rounds} interleaved rounds": time_table(contenders, times),
        "IoU on "
        + ", ".join(f"{split.name} ({len(split)} pictures)" for split in data)
        + "; "
        + ", ".join(f"{short}: {long}" for short, long in SCORES.items()): score_table(names, scores),
    }
    here = machine()
    conditions = (
        f"{here['cpu']}, {here['cores']} cores, {here['system']}, Python {here['python']}, "
        + ", ".join(f"{k} {v}" for k, v in versions().items())
        + f"; load average {load:.2f} before, {load_after:.2f} after"
    )
    print("\n\n".join(f"{title}\n{as_text(rows)}" for title, rows in tables.items()))
    print(f"\n{conditions}")
    if args.markdown:
        parts = [f"**{title}**\n\n{as_markdown(rows)}" for title, rows in tables.items()]
        write_text(args.markdown, "\n\n".join([*parts, conditions]) + "\n")
    if args.json:
        record = {
            "machine": here,
            "versions": versions(),
            "load_average": {"before": load, "after": load_after},
            "rounds": args.rounds,
            "warmup_rounds": WARMUP,
            "threads": args.threads,
            "frame": {"height": FRAME[0], "width": FRAME[1]},
            "models": [
                _record(c, times, names[0], zip(scores[c.name], data, strict=True)) for c in contenders
            ],
        }
        write_text(args.json, json.dumps(record, indent=1) + "\n")


def _record(c: Contender, times: Mapping[str, Milliseconds], first: str, scored: Any) -> dict[str, Any]:
    ms = times[c.name]
    return {
        "name": c.name,
        "runtime": c.runtime,
        "file": c.file.name,
        "sha256": sha256(c.file),
        "bytes": c.file.stat().st_size,
        "input": {"height": c.size[0], "width": c.size[1]},
        "ms": {
            "p50": float(np.percentile(ms, 50)),
            "p90": float(np.percentile(ms, 90)),
            "mean": float(ms.mean()),
            "times_the_first": dataclasses.asdict(paired_ratio(ms, times[first])),
            "rounds": [round(float(v), 3) for v in ms],
        },
        "scores": [as_record(scores, split) for scores, split in scored],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["portrait", "portrait-open"],
        metavar="MODEL",
        help="ours: shipped names or files; the first is what all are compared to "
        "(default: portrait portrait-open)",
    )
    parser.add_argument(
        "--shared",
        type=Path,
        default=SHARED,
        metavar="DIR",
        help="peers, data and clips (default: ../shared)",
    )
    parser.add_argument(
        "--data-limit", type=positive, metavar="N", help="at most N pictures of each set (default: all)"
    )
    parser.add_argument("--rounds", type=positive, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--threads",
        type=positive,
        default=1,
        metavar="N",
        help="of every model and of OpenCV (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, every round's times too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    args = parser.parse_args(argv)
    return exit_status("peers", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
