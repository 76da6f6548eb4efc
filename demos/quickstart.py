"""From nothing to a mask, the main job in one go: export, verify, segment a real photo, time it.

``make demo`` runs it. It needs the extras ``export`` and ``demo``.
"""

from __future__ import annotations

import argparse
import html
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export import VerificationError, export_model
from edge_deeplab.files import write_text
from edge_deeplab.imaging import Frame, write_image
from edge_deeplab.runtimes import Runtime, Segmentation, open_model


def photo() -> Frame:
    """A real photo that comes with scikit-image: NASA's portrait of Eileen Collins, BGR (512, 512, 3)."""
    with needs("demo"):
        from skimage.data import astronaut
    rgb = np.asarray(astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)  # type: ignore[return-value]


def replace_background(frame: Frame, result: Segmentation, color: tuple[int, int, int]) -> Frame:
    """The person on a plain BGR colour, blended by the soft alpha."""
    alpha = result.alpha[..., None].astype(np.float32) / 255
    return (frame * alpha + np.array(color, np.float32) * (1 - alpha)).round().astype(np.uint8)


def strip(frame: Frame, result: Segmentation) -> Frame:
    """Photo, overlay, alpha and new background side by side, BGR."""
    alpha = cv2.cvtColor(result.alpha, cv2.COLOR_GRAY2BGR)
    pictures = [frame, result.overlay(frame), alpha, replace_background(frame, result, (205, 175, 95))]
    return np.hstack(pictures)


def timings(model: Runtime, frame: Frame, threads: int, runs: int = 50) -> dict[str, float]:
    """Median milliseconds of each stage, after a warm-up."""
    cv2.setNumThreads(threads)
    model.warmup(5)
    times = [model.segment(frame).times for _ in range(runs)]
    stages = ("preprocess", "inference", "postprocess", "total")
    return {stage: statistics.median(getattr(t, stage) for t in times) for stage in stages}


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>edge-deeplab: quick start</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }}
img {{ width: 100%; height: auto; border-radius: 6px; }}
table {{ border-collapse: collapse; margin: 1rem 0; }} td, th {{ padding: .25rem 1rem .25rem 0; text-align: left; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; }} pre {{ background: #f4f6f8; padding: 1rem; overflow-x: auto; }}
</style>
<h1>From a photo to a mask</h1>
<img src="strip.png" alt="photo, overlay, alpha and replaced background, side by side">
<p>Photo: NASA, Eileen Collins (public domain), as it comes with scikit-image.</p>
<h2>The artefact</h2><pre>{report}</pre>
<h2>Milliseconds for one {width}x{height} frame, median of 50</h2>
<table><tr><th>threads</th><th>preprocess</th><th>inference</th><th>postprocess</th><th>whole pipeline</th></tr>{rows}</table>
<p>{machine}</p>
</html>
"""


def run(output: Path) -> None:
    """Do it all and leave pictures and ``report.html`` in ``output``."""
    frame = photo()
    artefact = output / "portrait.onnx"
    print(
        "1/3  exporting portrait to ONNX and verifying it against PyTorch (about half a minute)", flush=True
    )
    report = export_model("portrait", "onnx", artefact)
    print(report.table())
    print("2/3  segmenting a photo")
    rows = ""
    begin = time.perf_counter()
    with open_model(artefact) as model:
        result = model.segment(frame)
        print(f"  from opening the file to the first mask: {time.perf_counter() - begin:.2f} s")
    write_image(output / "strip.png", strip(frame, result))
    write_image(output / "alpha.png", result.alpha)
    write_image(output / "cutout.png", result.cutout(frame))
    print("3/3  timing")
    for threads in (1, 2):
        with open_model(artefact, threads=threads) as model:
            stages = timings(model, frame, threads)
        text = ", ".join(f"{stage} {value:.2f}" for stage, value in stages.items())
        print(f"  {threads} thread{'s' if threads > 1 else ''}: {text} ms")
        rows += (
            f"<tr><td>{threads}</td>"
            + "".join(f'<td class="n">{v:.2f}</td>' for v in stages.values())
            + "</tr>"
        )
    machine = f"{platform.processor() or platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    values: dict[str, Any] = {"height": frame.shape[0], "width": frame.shape[1], "rows": rows}
    write_text(
        output / "report.html",
        PAGE.format(report=html.escape(report.table()), machine=html.escape(machine), **values),
    )
    print(f"look at {output / 'strip.png'} and {output / 'report.html'}")


def main() -> int:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the results")
    args = parser.parse_args()
    try:
        run(args.output)
    except UserError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    except VerificationError as error:
        print(f"{error.report.table()}\nquickstart: refused, nothing was written", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
