"""Recorded output of other people's programs: ``recordings/TOOL.txt``, each with its source."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("recordings")


def recordings(tool: str) -> dict[str, str]:
    """Title -> text of every recording of a tool; ``## title`` and ``# source: ...`` head each."""
    found = {}
    for block in ("\n" + (FOLDER / f"{tool}.txt").read_text(encoding="utf-8")).split("\n## ")[1:]:
        title, source, text = block.split("\n", 2)
        assert source.startswith("# source: "), title
        found[title] = text
    return found
