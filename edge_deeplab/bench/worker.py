"""Runs a job on this machine: ``python3 -m edge_deeplab.bench.worker JOB.json`` or ``-`` for standard input.

Needs Python 3.10, numpy, OpenCV and the runtimes of the job; no torch, no tqdm, no installation: the
files of :func:`edge_deeplab.bench.bundle.bundle` on ``PYTHONPATH`` are enough. Standard output carries one
JSON object a line, each with one key::

    {"progress": {"phase": "measure", "done": 3, "total": 30, "text": "portrait"}}
    {"result": {...}}        the record of edge_deeplab.bench.record.Result; the last line
    {"error": "one line"}    instead of a result

Exit status: 0 with a result, 2 with an error the user can mend, 130 when stopped. With
``--until-eof`` the job is the first line of standard input and the run stops when standard input
closes: started over a connection, nothing stays behind when the connection is cut.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edge_deeplab.bench.record import Job
from edge_deeplab.bench.session import run_job
from edge_deeplab.bench.typed import to_plain
from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Run a job and write its result."""
    parser = argparse.ArgumentParser(prog="edge_deeplab.bench.worker", allow_abbrev=False)
    parser.add_argument("job", metavar="JOB.json", help="the job; - reads standard input")
    parser.add_argument(
        "--until-eof", action="store_true", help="job on the first line; stop when standard input closes"
    )
    args = parser.parse_args(argv)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        job = Job.from_json(_job_text(args.job, args.until_eof))
        if args.until_eof:
            threading.Thread(target=_stop_with_input, daemon=True).start()
        result = run_job(job, lambda progress: _say("progress", asdict(progress)))
        _say("result", to_plain(result))
    except UserError as error:
        _say("error", " ".join(str(error).split()))
        return 2
    except BrokenPipeError:  # nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 130
    except KeyboardInterrupt:
        return 130
    return 0


def _job_text(path: str, one_line: bool) -> str:
    if path != "-":
        return read_bytes(path).decode()
    return sys.stdin.readline() if one_line else sys.stdin.read()


def _stop_with_input() -> None:
    """Wait for the end of standard input, then stop as Ctrl-C does."""
    while sys.stdin.read(1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _say(key: str, value: Any) -> None:
    sys.stdout.write(json.dumps({key: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
