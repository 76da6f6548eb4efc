"""Runs on a board: ``python -m edge_deeplab.export.build_engine PREPARED.onnx OUT.engine own|fp16|int8``.

Does what ``edge-deeplab export PREPARED.onnx --target trt`` does there, without the command line and what
that imports. Ends with 0, or with one line on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from edge_deeplab.errors import UserError


def main(words: Sequence[str]) -> int:
    """Build and verify one engine."""
    from edge_deeplab.export import Options, VerificationError, export_model

    prepared, engine, wanted = words
    # Without another wish an engine gets the precision of its graph.
    options = Options(precision="fp16" if wanted == "fp16" else "int8" if wanted == "int8" else "fp32")
    try:
        export_model(prepared, "trt", engine, options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except VerificationError as error:
        print(f"it was too far from its ONNX file: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
