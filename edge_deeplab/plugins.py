"""A folder is a registry: one new file with the right prefix is found by everything that lists it."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any


@cache
def discover(package: str, prefix: str, attribute: str) -> dict[str, Any]:
    """Objects called ``attribute`` in the modules ``package.prefix*``, keyed by the rest of the name.

    Modules found here must be cheap to import: heavy SDKs are imported where they are used.
    """
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith(prefix):
            loaded = importlib.import_module(f"{package}.{module.name}")
            found[module.name.removeprefix(prefix)] = getattr(loaded, attribute)
    return dict(sorted(found.items()))
