"""Write the test vectors of docs/contract.md with the package itself.

    python -m tests.contract.make_vectors           # write docs/contract/vectors.json and figure.png
    python -m tests.contract.make_vectors --check   # say whether they would change

To be run after new weights of ``portrait``, and never to make a failing test pass.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.imaging import encode_image
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import ClassInfo, InputContract
from tests.contract.figure import figure
from tests.contract.reference import output, pattern

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "contract.md"
FOLDER = ROOT / "docs" / "contract"

MARGIN = 1e-4
"""No score of a mask vector lies closer to the cut: rounding must not decide."""

NETWORK = 1e-3
"""By how much logits may differ between processors and runtimes, float32."""

SQUARE: dict[str, Any] = {"height": 256, "width": 256}
PORTRAIT: dict[str, Any] = {"height": 288, "width": 288}
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}

TENSORS: tuple[tuple[str, tuple[int, int], dict[str, Any]], ...] = (
    ("bilinear, as `portrait`", (240, 320), PORTRAIT),
    ("enlarged", (37, 41), SQUARE),
    ("halved", (720, 1280), SQUARE),
    ("halved twice, odd sides", (1083, 1439), SQUARE),
    ("halved to the input's size", (512, 512), SQUARE),
    ("letterbox", (240, 320), {**SQUARE, "resize": "letterbox"}),
    ("ImageNet's mean and std, BGR", (240, 320), {**SQUARE, **IMAGENET, "channels": "BGR"}),
    ("NHWC uint8", (240, 320), {**SQUARE, "layout": "NHWC", "dtype": "uint8"}),
    ("NHWC int8", (240, 320), {**SQUARE, "layout": "NHWC", "dtype": "int8"}),
)

MASKS: tuple[tuple[str, tuple[int, int], tuple[int, int, int], dict[str, Any]], ...] = (
    ("logits, as `portrait`", (240, 320), (1, 72, 72), PORTRAIT),
    ("threshold 0.7", (240, 320), (1, 64, 64), {**SQUARE, "threshold": 0.7}),
    ("probability", (240, 320), (1, 64, 64), {**SQUARE, "head": "probability"}),
    ("letterbox", (240, 320), (1, 64, 64), {**SQUARE, "resize": "letterbox"}),
    ("four classes", (60, 80), (4, 16, 24), {"height": 64, "width": 96}),
    ("class map", (192, 160), (1, 64, 96), {"height": 64, "width": 96, "head": "classmap"}),
)


def contract(options: dict[str, Any], classes: int = 2) -> InputContract:
    colors = tuple(ClassInfo(str(k), (0, 0, 0)) for k in range(classes))
    return InputContract("vectors", "lite", classes=colors, **options)


def record(made: InputContract) -> dict[str, Any]:
    """What of a contract the arithmetic depends on."""
    fields = ("height", "width", "resize", "channels", "mean", "std", "layout", "dtype", "head", "threshold")
    return {name: getattr(made, name) for name in fields}


def sha(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def samples(array: NDArray[Any], count: int = 8) -> list[list[float]]:
    """Some elements: their index, then the value."""
    places = np.linspace(0, array.size - 1, count).astype(int)
    at = np.unravel_index(places, array.shape)
    return [[*map(int, index), array[index].item()] for index in zip(*at, strict=True)]


def tensor_vector(name: str, size: tuple[int, int], options: dict[str, Any]) -> dict[str, Any]:
    made, frame = contract(options), pattern(*size)
    tensor = imaging.preprocess(frame, made)
    return {
        "name": name,
        "frame": {"height": size[0], "width": size[1], "sha256": sha(frame)},
        "contract": record(made),
        "tensor": {"shape": tensor.shape, "sha256": sha(tensor), "samples": samples(tensor)},
    }


def mask_vector(
    name: str, size: tuple[int, int], shape: tuple[int, int, int], options: dict[str, Any]
) -> dict[str, Any]:
    made = contract(options, 2 if shape[0] == 1 and options.get("head") != "classmap" else 4)
    answer = output(made.head, *shape)
    labels, scores = imaging.postprocess(answer, made, *size)
    _far_from_the_cut(answer, made, size, scores)
    return {
        "name": name,
        "frame": {"height": size[0], "width": size[1]},
        "contract": record(made),
        "output": {"shape": answer.shape, "sha256": sha(answer)},
        "mask": {
            "sha256": sha(labels),
            "pixels": np.bincount(labels.ravel()).tolist(),
            "scores": [] if scores is None else samples(scores),
        },
    }


def _far_from_the_cut(
    answer: NDArray[Any], made: InputContract, size: tuple[int, int], scores: NDArray[Any] | None
) -> None:
    if made.head == "classmap":
        return
    if scores is None:
        place = imaging.placement(made, *size)
        planes = np.sort([imaging._resize_map(plane, made, place, *size) for plane in answer], axis=0)
        distance = float((planes[-1] - planes[-2]).min())
    else:
        cut = made.threshold if made.head == "probability" else made.logit_threshold
        distance = float(np.abs(scores - cut).min())
    if distance < MARGIN:
        raise SystemExit(
            f"{made.head} {size}: a score lies {distance:.2g} from the cut; choose another formula or size"
        )


def network_vector() -> dict[str, Any]:
    frame = figure()
    with open_model("portrait", threads=1) as model:
        made = model.contract
        tensor = imaging.preprocess(frame, made)
        logits = model.infer(tensor)
        labels, scores = imaging.postprocess(logits[0], made, *frame.shape[:2])
    assert scores is not None
    return {
        "model": made.name,
        "weights_sha256": made.provenance.weights_sha256,
        "frame": {
            "file": "figure.png",
            "height": frame.shape[0],
            "width": frame.shape[1],
            "sha256": sha(frame),
        },
        "contract": record(made),
        "tensor": {"shape": tensor.shape, "sha256": sha(tensor)},
        "logits": {"shape": logits.shape, "samples": samples(logits), "tolerance": NETWORK},
        "mask": {
            "pixels": np.bincount(labels.ravel()).tolist(),
            "within_tolerance": int((np.abs(scores - made.logit_threshold) < NETWORK).sum()),
            "rows": ["".join(map(str, row)) for row in labels[::24, ::8]],
        },
    }


def vectors() -> dict[str, Any]:
    """All of them, as they go into the file."""
    return {
        "tensors": [tensor_vector(*case) for case in TENSORS],
        "masks": [mask_vector(*case) for case in MASKS],
        "network": network_vector(),
    }


def table(found: dict[str, Any]) -> str:
    """What the page shows of them."""
    rows: list[tuple[str, ...]] = [
        ("frame to tensor", "frame", "input", "first 16 digits of its hash"),
        ("---",) * 4,
        *((v["name"], _size(v), _shape(v["tensor"]), _digits(v["tensor"])) for v in found["tensors"]),
        (),
        ("output to mask", "output", "frame", "pixels of each class", "hash"),
        ("---",) * 5,
        *(
            (
                v["name"],
                _shape(v["output"]),
                _size(v),
                ", ".join(map(str, v["mask"]["pixels"])),
                _digits(v["mask"]),
            )
            for v in found["masks"]
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" if row else "" for row in rows)


def _size(vector: dict[str, Any]) -> str:
    return f"{vector['frame']['height']}x{vector['frame']['width']}"


def _pixels(mask: dict[str, Any]) -> str:
    return ", ".join(map(str, mask["pixels"]))


def _digits(array: dict[str, Any]) -> str:
    return f"`{array['sha256'][:16]}`"


def _shape(array: dict[str, Any]) -> str:
    return "x".join(map(str, array["shape"]))


BEGIN, END = "<!-- vectors -->\n", "<!-- end of vectors -->"
CLOSE = re.compile(r"(?<=of the mask's pixels )\d+(?=\s+lies)")


def page(found: dict[str, Any]) -> str:
    """The page with its tables as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return CLOSE.sub(
        str(found["network"]["mask"]["within_tolerance"]), before + BEGIN + table(found) + "\n" + END + after
    )


def files() -> dict[Path, bytes]:
    """What the files should hold."""
    found = vectors()
    text = json.dumps(found, indent=1)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    return {
        FOLDER / "vectors.json": (text + "\n").encode(),
        FOLDER / "figure.png": encode_image("figure.png", figure()),
        PAGE: page(found).encode(),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="the test vectors of docs/contract.md")
    parser.add_argument("--check", action="store_true", help="write nothing")
    changed = 0
    check = parser.parse_args().check
    for path, data in files().items():
        if not path.exists() or path.read_bytes() != data:
            changed += 1
            print(f"{'would change' if check else 'wrote'} {path.relative_to(ROOT)}")
            if not check:
                path.write_bytes(data)
    return 1 if check and changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
