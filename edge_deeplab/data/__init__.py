"""Labelled pictures as people have them on disk, behind one spec: ``KIND:PATH``.

A new kind is one new file ``kind_NAME.py`` with a ``KIND``. No torch here: evaluation of an ONNX
model reads its pictures through this package too.
"""

from edge_deeplab.data.base import Kind, Pair, Split, kinds, open_split, open_splits

__all__ = ["Kind", "Pair", "Split", "kinds", "open_split", "open_splits"]
