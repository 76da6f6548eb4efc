"""Which of ONNX Runtime's execution providers really ran a model, and how much of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edge_deeplab.bench.record import Contender
from edge_deeplab.errors import needs
from edge_deeplab.runtimes import Runtime


def inspect_session(runtime: Runtime, contender: Contender) -> dict[str, str]:
    """Nodes on each provider, and ``fallback`` in words where the first one asked for did not get all.

    Args:
        runtime: An open ``OnnxRuntime``.
        contender: What was asked for.
    """
    session: Any = runtime.session  # type: ignore[attr-defined]
    present: list[str] = session.get_providers()
    shares = node_shares(contender.path, present)
    found = {}
    if shares:
        total = sum(shares.values())
        found["nodes"] = ", ".join(f"{name} {count} of {total}" for name, count in shares.items())
    fallback = fallback_text(contender.options.get("providers") or ["cpu"], present, shares)
    return {**found, "fallback": fallback} if fallback else found


def fallback_text(asked: Sequence[str], present: Sequence[str], shares: dict[str, int]) -> str:
    """Why the figures are not those of the first provider asked for; empty when they are.

    Args:
        asked: Names as the user gave them, short or ONNX Runtime's own.
        present: Providers of the session: one whose libraries are missing is silently left out.
        shares: Nodes of the optimised graph on each, empty if unknown.
    """
    from edge_deeplab.runtimes.on_onnxruntime import SHORT_NAMES

    wanted = SHORT_NAMES.get(asked[0].lower(), asked[0])
    if wanted not in present:
        return f"{wanted} was asked for but did not start; {present[0]} ran the model"
    total = sum(shares.values())
    if total and shares.get(wanted, 0) < total:
        return f"{wanted} got {shares.get(wanted, 0)} of {total} nodes only"
    return ""


def node_shares(path: str, providers: Sequence[str]) -> dict[str, int]:
    """Provider -> nodes of the optimised graph that it runs; empty before ONNX Runtime 1.24."""
    with needs("onnx"):
        import onnxruntime as ort
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(path, settings, providers=list(providers))
    told = getattr(session, "get_provider_graph_assignment_info", None)
    counts: Counter[str] = Counter()
    for part in told() if told else ():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)
