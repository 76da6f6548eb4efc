"""What a model answers, drawn without the photos, so that it may be shown where they may not.

Pictures are spread over a val split from best to worst. Left: the class of every pixel, in the model's
colours. Right: grey where it is right, red where it is wrong, black where the truth says nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from measuring import bar, exit_status

from edge_deeplab.cli.arguments import positive
from edge_deeplab.data import Split, open_split
from edge_deeplab.evaluation import check_classes
from edge_deeplab.imaging import Frame, Labels, check_picture, palette, write_image
from edge_deeplab.metrics import IGNORE, Evaluator
from edge_deeplab.runtimes import Runtime, open_model

RIGHT, WRONG = (200, 200, 200), (60, 60, 220)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def drawn(labels: Labels, truth: Labels, colors: Frame, words: str) -> Frame:
    """(H, 2 W, 3) BGR from two (H, W) label maps."""
    verdict = np.zeros((*truth.shape, 3), np.uint8)
    verdict[labels == truth] = RIGHT
    verdict[labels != truth] = WRONG
    verdict[truth == IGNORE] = 0
    both = np.hstack([colors[labels], verdict])
    # A box, no outline: letters of another thickness are of another width in OpenCV 5.
    width = cv2.getTextSize(words, FONT, 0.5, 1)[0][0]
    cv2.rectangle(both, (0, both.shape[0] - 24), (width + 12, both.shape[0]), (32, 32, 32), cv2.FILLED)
    cv2.putText(both, words, (6, both.shape[0] - 8), FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return both


def ranked(model: Runtime, split: Split) -> list[tuple[float, int]]:
    """(IoU of the picture itself, its place), best first."""
    scores, found = Evaluator(len(split.classes), boundary=False), []
    for place in bar(range(len(split)), desc="scoring", unit="picture"):
        image, truth = split.read(place)
        found.append((scores.add(model.segment(image).labels, truth), place))
    return sorted(found, reverse=True)


def run(args: argparse.Namespace) -> None:
    """Score, choose, draw."""
    check_picture(args.output)
    split = open_split(args.data, args.split)
    with open_model(args.model) as model:
        check_classes(model.contract, split)
        order = ranked(model, split)
        chosen = [order[k] for k in np.linspace(0, len(order) - 1, args.count).round().astype(int)]
        colors = palette(model.contract)
        rows = []
        for iou, place in chosen:
            image, truth = split.read(place)
            words = f"mIoU {iou:.3f}, {np.mean(truth != IGNORE):.0%} labelled"
            rows.append(drawn(model.segment(image).labels, truth, colors, words))
    width = min(row.shape[1] for row in rows)
    same = [
        cv2.resize(r, (width, r.shape[0] * width // r.shape[1]), interpolation=cv2.INTER_NEAREST)
        for r in rows
    ]
    write_image(args.output, np.vstack(same))
    print(args.output)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint or an artefact")
    parser.add_argument("--data", required=True, metavar="KIND:PATH")
    parser.add_argument("--split", default="val", metavar="NAME")
    parser.add_argument("--count", type=positive, default=4, metavar="N", help="pictures (default: 4)")
    parser.add_argument("--output", type=Path, default=Path("out/answers.png"), metavar="FILE")
    args = parser.parse_args(argv)
    return exit_status("answers", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
