"""Prints the JSON Schema of a result; ``docs/bench-result.schema.json`` is its output."""

from __future__ import annotations

import json

from edge_deeplab.bench.record import result_schema

if __name__ == "__main__":
    print(json.dumps(result_schema(), indent=1, ensure_ascii=False))
