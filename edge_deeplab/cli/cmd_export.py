"""``edge-deeplab export [MODEL] --target NAME``."""

from __future__ import annotations

import argparse

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import bar, positive, size


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
        "--output", metavar="PATH", help="the artefact (default: NAME and the target's suffix, here)"
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
    parser.add_argument("--fp16", action="store_true", help="16-bit weights, where the target has them")
    parser.add_argument("--opset", type=positive, default=18, help="ONNX opset, at least 17 (default 18)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--data", metavar="SPEC", help="verify on labelled pictures (their val split): KIND:PATH"
    )
    where.add_argument("--pictures", metavar="DIR", help="verify on a folder of pictures")
    parser.add_argument(
        "--count", type=positive, default=100, help="at most this many pictures (default 100)"
    )


def _run(args: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from edge_deeplab.errors import needs
    from edge_deeplab.export import Options, VerificationError, export_model, targets

    suffix = targets()[args.target].suffix
    output = Path(args.output or Path(args.model).stem + suffix)
    samples, source = None, "the packaged portrait, eight views"
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
        samples, source = verify.labelled_pictures(split, args.count), split.name
    elif args.pictures:
        samples, source = verify.folder_pictures(Path(args.pictures), args.count), args.pictures
    options = Options(
        head=args.head,
        size=args.size,
        dynamic=tuple(args.dynamic),
        precision="fp16" if args.fp16 else "fp32",
        opset=args.opset,
    )
    if sys.stderr.isatty():
        print(f"exporting {args.model} to {args.target}: trace, simplify, verify", file=sys.stderr)
    try:
        report = export_model(
            args.model,
            args.target,
            output,
            options,
            samples=samples,
            source=source,
            progress=lambda items: bar(items, desc="verifying", unit="picture"),
        )
    except VerificationError as error:
        print(error.report.table())
        print(f"edge-deeplab: {output} was not written: {error}", file=sys.stderr)
        return 1
    print(report.table())
    print(f"  {'written':18} {output} and {output.name}.report.json")
    return 0


COMMAND = Command("export a model to an artefact and verify it against PyTorch", _arguments, _run)
