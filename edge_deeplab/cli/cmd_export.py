"""``edge-deeplab export [MODEL] --target NAME``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import bar, number, positive, size
from edge_deeplab.cli.export_flags import refuse_unused
from edge_deeplab.cli.given import leave_out

if TYPE_CHECKING:
    from edge_deeplab.export import Options
    from edge_deeplab.export.verify import Samples


def _arguments(parser: argparse.ArgumentParser) -> None:
    from edge_deeplab.export.base import targets

    known = targets()
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default="portrait",
        help="a shipped name or a checkpoint (default: portrait)",
    )
    parser.add_argument(
        "--target",
        required=True,
        choices=list(known),
        help="; ".join(f"{n}: {t.help}" for n, t in known.items()),
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="the artefact (default: MODEL, precision unless fp32, and the target's suffix, here)",
    )
    precision = parser.add_mutually_exclusive_group()
    for flag, text in (
        ("--fp16", "16-bit floats, where the target has them"),
        ("--int8", "8-bit integers, weights and activations; needs --calibration but for shipped models"),
        ("--int8-dynamic", "8-bit weights; activations are scaled as they come, without calibration"),
    ):
        precision.add_argument(
            flag, action="store_const", const=flag[2:], dest="precision", default="fp32", help=text
        )
    parser.add_argument(
        "--head",
        default="logits",
        choices=("logits", "logits-full", "classmap", "probability"),
        help="what the output holds: logits at low resolution (default, fastest) or at input size, "
        "class ids, or probability",
    )
    parser.add_argument("--size", type=size, metavar="HxW", help="input size (default: the model's own)")
    parser.add_argument(
        "--dynamic",
        action="append",
        choices=("batch", "size"),
        default=[],
        help="axes that may change at run time; repeat for both",
    )
    parser.add_argument(
        "--io",
        choices=("float32", "uint8", "int8"),
        help="type of the input; uint8 takes the pixels themselves (default: the target's first)",
    )
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), help="of the input (default: the target's own)")
    parser.add_argument("--opset", type=positive, default=18, help="ONNX opset, at least 17 (default 18)")
    _calibration_arguments(parser.add_argument_group("INT8"))
    _gate_arguments(parser.add_argument_group("verification"))
    own = {}
    for name, target in known.items():
        group = parser.add_argument_group(f"--target {name}")
        target.arguments(group)
        own.update(dict.fromkeys((action.dest for action in group._group_actions), name))
    parser.set_defaults(left=leave_out(parser), own=own)


def _calibration_arguments(group: argparse._ArgumentGroup) -> None:
    from edge_deeplab.export.base import METHODS, SCHEMES

    group.add_argument(
        "--calibration",
        metavar="SPEC|DIR",
        help="real pictures to measure ranges on: KIND:PATH (its train split) or a folder",
    )
    group.add_argument(
        "--calibration-count", type=positive, default=128, metavar="N", help="of them (default 128)"
    )
    group.add_argument(
        "--calibration-method", choices=METHODS, default="minmax", help="how ranges follow from values"
    )
    group.add_argument(
        "--calibration-seed", type=int, default=0, metavar="N", help="of the choice (default 0)"
    )
    group.add_argument(
        "--scheme",
        choices=SCHEMES,
        help="integer types of activations and weights (default: what the target's devices like)",
    )
    group.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="LAYER",
        help="leave a layer in float; repeat. Names: --diagnose",
    )
    group.add_argument(
        "--no-remedies",
        action="store_true",
        help="no equalisation, no bias correction, no search for layers to keep in float",
    )


def _gate_arguments(group: argparse._ArgumentGroup) -> None:
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--data", metavar="SPEC", help="verify on labelled pictures (their val split): KIND:PATH"
    )
    where.add_argument("--pictures", metavar="DIR", help="verify on a folder of pictures")
    group.add_argument("--count", type=positive, default=100, help="at most this many pictures (default 100)")
    group.add_argument(
        "--max-drop",
        type=number,
        metavar="POINTS",
        help="largest loss of IoU against PyTorch, with --data (default: 0.5 for INT8, else 0.1)",
    )
    group.add_argument("--diagnose", action="store_true", help="measure the error of every layer")
    group.add_argument("--force", action="store_true", help="keep an artefact that failed")


def complete(args: argparse.Namespace) -> None:
    """Fill in what was not typed.

    Raises:
        UserError: Something was that has no effect on this export.
    """
    from edge_deeplab.export.base import targets

    refuse_unused(args, args.left.settle(args), targets(), args.own)


def _run(args: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from edge_deeplab.export import VerificationError, export_model

    complete(args)
    options = _options(args)
    output = Path(args.output or _name(args, options))
    samples, source = _samples(args)
    if sys.stderr.isatty():
        print(f"exporting {args.model} to {args.target}, {args.precision}", file=sys.stderr)
    try:
        report = export_model(args.model, args.target, output, options, samples=samples, source=source)
    except VerificationError as error:
        print(error.report.table())
        refused = output.with_name(error.report.artefact)  # this, or one that was made beside it
        print(f"edge-deeplab: {refused} was not written: {error}", file=sys.stderr)
        return 1
    print(report.table())
    print(f"  {'written':18} {output} and {output.name}.report.json")
    if not report.passed:
        reasons = "; ".join(report.failures)
        print(f"edge-deeplab: {output} was kept by --force, but failed: {reasons}", file=sys.stderr)
    return 0 if report.passed else 1


def _name(args: argparse.Namespace, options: Options) -> str:
    """Where the user gave none: the model's name, what is special about the artefact, the suffix."""
    from pathlib import Path

    from edge_deeplab.export import targets

    target = targets()[args.target]
    suffix = target.output_suffix(options)
    precision = "" if args.precision == "fp32" else f"-{args.precision}"
    kind = "" if suffix == target.suffix else f"-{args.target}"
    return Path(args.model).stem + precision + kind + suffix


def _samples(args: argparse.Namespace) -> tuple[Samples | None, str]:
    """The pictures to verify on and their name; None for the packaged ones."""
    from pathlib import Path

    from edge_deeplab.errors import needs

    with needs("export"):
        from edge_deeplab.export import verify
    if args.data:
        from edge_deeplab.data import open_split
        from edge_deeplab.evaluation import check_classes
        from edge_deeplab.zoo import checkpoint_contract, find

        split = open_split(args.data, "val")
        path = find(args.model, prefer=(".safetensors",))
        if path.suffix == ".safetensors":
            check_classes(checkpoint_contract(path), split)
        return verify.labelled_pictures(split, args.count), split.name
    if args.pictures:
        return verify.folder_pictures(Path(args.pictures), args.count), args.pictures
    return None, "the packaged portrait, eight views"


def _options(args: argparse.Namespace) -> Options:
    import sys

    from edge_deeplab.export import Options, calibration, targets

    target = targets()[args.target]
    chosen = None
    if args.precision == "int8" and args.calibration:
        chosen = calibration.choose(
            args.calibration,
            args.calibration_count,
            method=args.calibration_method,
            seed=args.calibration_seed,
        )
    elif args.precision == "int8" and not args.model.endswith(".onnx"):  # a prepared file has its ranges
        chosen = calibration.for_shipped(
            args.model, args.calibration_count, method=args.calibration_method, seed=args.calibration_seed
        )
    return Options(
        head=args.head,
        size=args.size,
        dynamic=tuple(args.dynamic),
        precision=args.precision,
        opset=args.opset,
        input_dtype=args.io or target.input_dtypes[0],
        layout=args.layout,
        calibration=chosen,
        scheme=args.scheme,
        max_drop=args.max_drop,
        keep_float=tuple(args.keep_float),
        remedies=not args.no_remedies,
        force=args.force,
        diagnose=args.diagnose,
        settings=target.settings(args),
        progress=_progress,
        note=lambda line: print(f"edge-deeplab: note: {line}", file=sys.stderr),
    )


def _progress(items: Iterable[Any], label: str) -> Iterable[Any]:
    """A bar; of what cannot be counted only the name."""
    named = {"bar_format": "{desc} ..."} if items == (label,) else {}
    shown: Iterable[Any] = bar(items, desc=label, unit="picture", **named)
    return shown


COMMAND = Command("export a model to an artefact and verify it against PyTorch", _arguments, _run)
