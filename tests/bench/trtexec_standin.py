"""``trtexec`` for machines without a GPU: takes the flags of its version and prints what a real one printed.

Run as a program: ``python trtexec_standin.py FOLDER FLAG...``. FOLDER holds ``version`` (8.6, 10 or 11),
``output`` (a recording) and, once it has run, ``calls``. An ONNX file that holds the word "refused" is
refused as 11.2.1 refused one.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

COMMON = {"onnx", "saveEngine", "loadEngine", "duration", "iterations", "warmUp", "exportTimes", "help"}
SINCE_11 = {"includeDataTransfers": "Data transfers", "noSpinWait": "Spin-wait", "noCudaGraph": "CUDA Graph"}
UP_TO_10 = {"fp16", "int8"}

REFUSAL = """\
[09/25/2026-10:00:02] [E] [TRT] ITensor::getDimensions: Error Code 4: API Usage Error
[09/25/2026-10:00:02] [E] Failed to parse onnx file"""


def main() -> int:
    folder = Path(sys.argv[1])
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[2:])
    with (folder / "calls").open("a") as file:
        file.write(" ".join(sys.argv[2:]) + "\n")
    version = int((folder / "version").read_text())
    text = (folder / "output").read_text()
    banner, *_, last = text.strip().splitlines()
    print(banner)
    known = COMMON | (set(SINCE_11) if version >= 11 else UP_TO_10)
    known |= {"stronglyTyped"} if version == 10 else set()
    unknown = sorted(set(flags) - known)
    if unknown:
        print(f"[E] Unknown option: --{unknown[0]}")
        print(last.replace("PASSED", "FAILED"))
        return 1
    if "help" in flags:
        return 0
    if "onnx" in flags:
        return build(flags, last)
    engine = Path(flags["loadEngine"]).read_text()
    if not engine.startswith(f"engine of {version}"):
        print("[09/25/2026-10:00:02] [E] Engine deserialization failed")
        print(last.replace("PASSED", "FAILED"))
        return 1
    for flag, title in SINCE_11.items():
        if flag in flags:
            on = "Enabled" if flag == "includeDataTransfers" else "Disabled"
            text = re.sub(rf"{title}: \w+", f"{title}: {on}", text)
    print(text)
    times(flags, text)
    return 0


def build(flags: dict[str, str], last: str) -> int:
    if b"refused" in Path(flags["onnx"]).read_bytes():
        print(REFUSAL)
        print(last.replace("PASSED", "FAILED"))
        return 1
    number = int((Path(sys.argv[1]) / "version").read_text())
    precision = "+".join(sorted({"fp16", "int8", "stronglyTyped"} & set(flags))) or "plain"
    Path(flags["saveEngine"]).write_text(f"engine of {number}, {precision}")
    print(last)
    return 0


def times(flags: dict[str, str], text: str) -> None:
    """Queries around the recorded median, one of them slow."""
    found = {}
    for title in ("Latency", "GPU Compute Time"):
        match = re.search(rf"\] {title}: .*max = ([\d.]+) ms.* median = ([\d.]+) ms", text)
        assert match is not None
        found[title] = (float(match[1]), float(match[2]))
    count = max(3, int(flags["iterations"]))
    queries = []
    for k in range(count):
        place = 0 if k == 1 else 1
        queries.append({"latencyMs": found["Latency"][place], "computeMs": found["GPU Compute Time"][place]})
    Path(flags["exportTimes"]).write_text(json.dumps(queries))


if __name__ == "__main__":
    sys.exit(main())
