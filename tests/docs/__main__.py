"""Copy every command and snippet of the documents and run it from a clean install.

python -m tests.docs                      # all documents
python -m tests.docs docs/embed.md        # some
python -m tests.docs --list               # what would be done, and why the rest is not run
python -m tests.docs --real onnx,service  # dependencies of these extras from the index, not borrowed
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.docs.blocks import blocks as blocks_of
from tests.docs.blocks import documents
from tests.docs.install import install
from tests.docs.running import Outcome, check


def say(outcome: Outcome) -> None:
    """One line for a block."""
    block = outcome.block
    verdict = "FAILED" if outcome.problem else outcome.absent or block.how
    reason = f" ({block.why})" if block.why else ""
    print(f"{block}  {block.language}  {verdict}{reason}  {outcome.seconds:.1f} s", flush=True)
    if outcome.problem:
        print(outcome.problem, file=sys.stderr, flush=True)


def main() -> int:
    """Command line."""
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python -m tests.docs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", nargs="*", type=Path, help="default: all")
    parser.add_argument("--list", action="store_true", help="only say what would be done")
    parser.add_argument("--slow", action="store_true", help="run slow blocks too: half an hour and more")
    parser.add_argument("--real", metavar="EXTRAS", help="install dependencies from the index")
    args = parser.parse_args()
    chosen = [path.resolve() for path in args.documents] or documents()
    if args.list:
        for path in chosen:
            for block in blocks_of(path):
                print(f"{block}  {block.language}  {block.how}{f' ({block.why})' if block.why else ''}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        patience = 3600 if args.slow else 300
        made = install(
            Path(folder) / "install", real=args.real is not None, extras=args.real or "", patience=patience
        )
        outcomes = [outcome for path in chosen for outcome in check(path, made, slow=args.slow, say=say)]
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    counts = {
        how: sum(o.block.how == how for o in outcomes) for how in sorted({o.block.how for o in outcomes})
    }
    print(", ".join(f"{count} {how}" for how, count in counts.items()) + f"; {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
