"""Who takes part: MODEL arguments and options become contenders with names of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from edge_deeplab.bench.peer_engines import engine_for
from edge_deeplab.bench.peers import KNOWN, reader
from edge_deeplab.bench.record import Contender, PeerInput
from edge_deeplab.errors import UserError
from edge_deeplab.runtimes import runtimes
from edge_deeplab.spec import Channels
from edge_deeplab.zoo import find, shipped

PRECISION = re.compile(r"-(fp32|fp16|int8|dynamic)\b[\w-]*")
"""End of a shipped file's name that tells another precision of the same model."""


@dataclass(frozen=True)
class Variants:
    """What every model is multiplied by; an empty tuple leaves a choice to the runtime.

    Attributes:
        threads: CPU threads; None is the runtime's choice.
        sizes: (height, width) of the input.
        providers: ONNX Runtime's; each falls back to the CPU.
        modes: PyTorch's, see ``torch_modes.MODES``.
        torch_device: PyTorch's device.
    """

    threads: tuple[int | None, ...] = (1,)
    sizes: tuple[tuple[int, int], ...] = ()
    providers: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    torch_device: str | None = None


def lineup(models: Sequence[str], peers: Sequence[str], variants: Variants) -> tuple[Contender, ...]:
    """All contenders, ours first.

    Args:
        models: Shipped names (all their files take part), files, or folders of artefacts.
        peers: ``FILE[,KEY=VALUE]...``, see :func:`peer`.
        variants: Threads, sizes, providers and modes that multiply the models.

    Raises:
        UserError: No such model or peer, or an option is malformed or fits none of the models.
    """
    files = list(dict.fromkeys(path for model in models for path in files_of(model)))
    _check_options({path.suffix for path in files}, variants)
    found = [one for path in files for one in _variants(path, variants)]
    for text in peers:
        theirs = peer(text)
        found += [
            replace(theirs, name=_named(theirs.name, _threads_word(n, variants)), threads=n)
            for n in variants.threads
        ]
    return tuple(_distinct(found))


def files_of(model: str) -> list[Path]:
    """The files behind a MODEL argument.

    Raises:
        UserError: It is none, or a folder without any.
    """
    known = {suffix for runtime in runtimes().values() for suffix in runtime.suffixes}
    ours = shipped()
    if model in ours:
        names = [model, *(n for n in ours if PRECISION.fullmatch(n.removeprefix(model)) and n != model)]
        return [path for name in names for path in ours[name].values() if path.suffix in known]
    folder = Path(model).expanduser()
    if folder.is_dir():
        inside = sorted(p for p in folder.iterdir() if p.suffix in known and not p.name.startswith("."))
        if not inside:
            raise UserError(f"no models in {folder} ({', '.join(sorted(known))})")
        return inside
    path = find(model)
    if path.suffix not in known:
        raise UserError(
            f"no runtime opens {path}; suffixes known: {', '.join(sorted(known))} (is it a --peer?)"
        )
    return [path]


def peer(text: str) -> Contender:
    """``FILE[,KEY=VALUE]...`` with the keys ``name``, ``mean``, ``std``, ``channels`` and ``output``.

    ``mean`` and ``std`` are one number or three with slashes, ``127.5`` or ``123.7/116.3/103.5``: the
    input is ``(pixel - mean) / std``. A published file that :data:`KNOWN` lists needs none of them.

    Raises:
        UserError: No such file, an unknown key, or a value that does not fit.
    """
    name, *pairs = text.split(",")
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"no peer {path}: no such file")
    engine_for(path)
    label, options = KNOWN.get(path.name, (path.stem, None))
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in ("name", "mean", "std", "channels", "output"):
            raise UserError(f"--peer {text}: {pair!r} is none of name=, mean=, std=, channels=, output=")
        given[key] = value
    label = given.pop("name", label)
    if options is None and not {"std", "output"} <= set(given):
        raise UserError(
            f"--peer {path.name}: say how to feed and read it, e.g. "
            f"{path.name},mean=127.5,std=127.5,output=two-logits; nothing is guessed"
        )
    return Contender(label, str(path), peer=_peer_input(options or PeerInput(), given, text))


def _peer_input(base: PeerInput, given: dict[str, str], text: str) -> PeerInput:
    changes: dict[str, Any] = dict(given)
    for key in {"mean", "std"} & set(given):
        try:
            changes[key] = tuple(float(v) for v in given[key].split("/"))
        except ValueError:
            raise UserError(f"--peer {text}: {key}={given[key]} is no number") from None
    if "channels" in given and given["channels"] not in get_args(Channels):
        raise UserError(f"--peer {text}: channels must be {' or '.join(get_args(Channels))}")
    made = replace(base, **changes)
    reader(made.output, True, (1, 1))
    return made


def _check_options(suffixes: set[str], variants: Variants) -> None:
    """An option that no model listens to is a mistake, not a wish."""
    for option, value, suffix in (
        ("--provider", variants.providers, ".onnx"),
        ("--torch", variants.modes, ".safetensors"),
        ("--torch-device", variants.torch_device, ".safetensors"),
    ):
        if value and suffix not in suffixes:
            raise UserError(f"{option} has no effect without a {suffix} file among the models: leave it away")
    if variants.sizes and not suffixes:
        raise UserError("--size has no effect on peers: leave it away")


# -- names ---------------------------------------------------------------------------------------


def _variants(path: Path, variants: Variants) -> Iterable[Contender]:
    for size in variants.sizes or (None,):
        for options, word in _ways(path, variants):
            for threads in variants.threads:
                words = [word, f"{size[0]}x{size[1]}" if size and len(variants.sizes) > 1 else ""]
                yield Contender(
                    name=_named(path.name, *words, _threads_word(threads, variants)),
                    path=str(path.resolve()),
                    threads=threads,
                    options={**options, **({"size": list(size)} if size else {})},
                )


def _ways(path: Path, variants: Variants) -> list[tuple[dict[str, Any], str]]:
    """Options of a runtime, and the word that tells them apart."""
    if path.suffix == ".onnx" and variants.providers:
        return [
            (
                {"providers": [name] if name == "cpu" else [name, "cpu"]},
                name if len(variants.providers) > 1 else "",
            )
            for name in variants.providers
        ]
    if path.suffix == ".safetensors" and (variants.modes or variants.torch_device):
        device = {"device": variants.torch_device} if variants.torch_device else {}
        modes = variants.modes or ("eager",)
        return [({"mode": mode, **device}, mode if len(modes) > 1 else "") for mode in modes]
    return [({}, "")]


def _threads_word(threads: int | None, variants: Variants) -> str:
    if len(variants.threads) < 2:
        return ""
    return "all threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"


def _named(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _distinct(found: Sequence[Contender]) -> list[Contender]:
    """Names that stand more than once get their folder, then a number."""
    counts = Counter(one.name for one in found)
    named = [
        replace(one, name=f"{Path(one.path).parent.name}/{one.name}") if counts[one.name] > 1 else one
        for one in found
    ]
    seen: Counter[str] = Counter()
    result = []
    for one in named:
        seen[one.name] += 1
        result.append(replace(one, name=f"{one.name} #{seen[one.name]}") if seen[one.name] > 1 else one)
    return result
