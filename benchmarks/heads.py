"""What each head costs: its operators in ONNX Runtime, and our postprocessing of what they give, one thread.

Only the head: random smooth logits at stride 4 go in, a 640x480 mask comes out. The operators are those that
the exporter writes behind the last convolution. Times are the processor's, so that other processes do not
count; ``exports.py`` times whole artefacts by the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from export_grid import HEADS
from measuring import as_text, exit_status
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.bench.tables import figure, megabytes
from edge_deeplab.cli.arguments import positive, size
from edge_deeplab.errors import needs
from edge_deeplab.spec import ClassInfo, Head, InputContract

STRIDE = 4


@dataclass(frozen=True)
class Cost:
    """Of one head.

    Attributes:
        head: Its name.
        graph, after: Milliseconds of its operators, and of our postprocessing.
        bytes: Of the output.
    """

    head: str
    graph: float
    after: float
    bytes: int


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--classes", type=positive, default=21, metavar="N", help="3 or more (default 21)")
    parser.add_argument("--size", type=size, default=(513, 513), metavar="HxW", help="of the network's input")
    parser.add_argument("--repeat", type=positive, default=15, metavar="N", help="the best of N counts")
    args = parser.parse_args(argv)

    def run() -> None:
        costs = measure(args.classes, args.size, args.repeat)
        rows = [
            (c.head, *(figure(v) for v in (c.graph, c.after, c.graph + c.after)), megabytes(c.bytes))
            for c in costs
        ]
        print(as_text([("head", "graph ms", "after it ms", "together ms", "output MB"), *rows]))

    return exit_status("heads", run)


def measure(classes: int, input_size: tuple[int, int], repeat: int) -> list[Cost]:
    """All heads on the same logits."""
    cv2.setNumThreads(1)
    height, width = (-(-side // STRIDE) for side in input_size)
    noise = np.random.default_rng(0).normal(0, 40, (classes, height, width)).astype(np.float32)
    logits = np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in noise])[None]
    names = tuple(ClassInfo(f"class {k}", (k, k, k)) for k in range(classes))
    costs = []
    for head in HEADS:
        stride = 1 if head in ("logits-full", "classmap") else STRIDE
        contract = InputContract("x", "v3plus", *input_size, classes=names, head=head, head_stride=stride)
        run = session(head, (classes, height, width), input_size)
        output = run(logits)[0]

        def postprocess(output: NDArray[np.float32] = output, contract: InputContract = contract) -> object:
            return imaging.postprocess(output, contract, 480, 640)

        graph = best(lambda run=run: run(logits), repeat) if head != "logits" else 0.0  # type: ignore[misc]
        costs.append(Cost(head, graph, best(postprocess, repeat), output.nbytes))
    return costs


def session(
    head: Head, planes: tuple[int, int, int], input_size: tuple[int, int]
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The head's operators as a model of their own: logits (1, K, h, w) -> output."""
    with needs("export"):
        import onnxruntime
        from onnx import TensorProto, helper
    nodes, last = [], "given"
    if head in ("logits-full", "classmap"):
        nodes.append(
            helper.make_node(
                "Resize",
                [last, "", "", "size"],
                ["full"],
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        )
        last = "full"
    if head == "classmap":
        nodes.append(helper.make_node("ArgMax", [last], ["best"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["best"], ["ids"], to=TensorProto.UINT8))
        last = "ids"
    if head == "probability":
        nodes.append(helper.make_node("Softmax", [last], ["shares"], axis=1))
        last = "shares"
    if not nodes:
        return lambda logits: logits
    kind = TensorProto.UINT8 if head == "classmap" else TensorProto.FLOAT
    sizes = [helper.make_tensor("size", TensorProto.INT64, [4], [1, planes[0], *input_size])]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, [1, *planes])],
        [helper.make_tensor_value_info(last, kind, None)],
        sizes if head in ("logits-full", "classmap") else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return lambda logits: opened.run(None, {"given": logits})[0]


def best(call: Callable[[], object], repeat: int) -> float:
    """Milliseconds of processor time of the fastest call."""
    call()
    found = []
    for _ in range(repeat):
        begin = time.thread_time_ns()
        call()
        found.append((time.thread_time_ns() - begin) / 1e6)
    return min(found)


if __name__ == "__main__":
    raise SystemExit(main())
