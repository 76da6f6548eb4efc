"""Our shipped models beside what a user would pick instead: ``edge-deeplab bench`` with everything filled in.

The six peers, the three sets of labelled pictures and the webcam clips of ``../shared`` (README.md says
what must be there). Further options are those of ``edge-deeplab bench``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from measuring import SHARED, exit_status, shared_folder

from edge_deeplab.bench.peers import KNOWN
from edge_deeplab.cli import main as edge_deeplab
from edge_deeplab.errors import UserError

DATA = ("eg", "ccp_upper", "ccp_full")


def arguments(shared: Path, models: Sequence[str], more: Sequence[str]) -> list[str]:
    """Of ``edge-deeplab``.

    Raises:
        UserError: A peer is missing.
    """
    words = ["bench", *models, "--frames", str(shared / "video")]
    for file in KNOWN:
        path = shared / "peers" / file
        if not path.is_file():
            raise UserError(f"{path} is missing; see benchmarks/README.md for what --shared must hold")
        words += ["--peer", str(path)]
    for name in DATA:
        words += ["--data", f"folder:{shared / 'data' / name}"]
    return [*words, *more]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Everything else (--threads, --rounds, --output DIR ...): see edge-deeplab bench --help.",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["portrait", "portrait-open"],
        metavar="MODEL",
        help="shipped names, files or folders (default: portrait portrait-open)",
    )
    parser.add_argument(
        "--shared",
        type=Path,
        default=SHARED,
        metavar="DIR",
        help="peers, data and clips (default: ../shared)",
    )
    args, more = parser.parse_known_args(argv)
    status = 0

    def run() -> None:
        nonlocal status
        status = edge_deeplab(arguments(shared_folder(args.shared), args.models, more))

    return exit_status("peers", run) or status


if __name__ == "__main__":
    raise SystemExit(main())
