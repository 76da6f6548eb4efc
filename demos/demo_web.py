"""``edge-deeplab demo web``: the model in the browser, on the visitor's camera (docs/demo-web.md)."""

from __future__ import annotations

import argparse
import socket
from typing import TYPE_CHECKING

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import add_runtime_options, open_from, port

if TYPE_CHECKING:
    from edge_deeplab.demos.web.app import Site

PORT = 8765


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: portrait")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this computer only)"
    )
    parser.add_argument(
        "--port", type=port, default=PORT, help=f"default: {PORT}; 0 takes a free one and prints it"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the default browser")
    parser.add_argument(
        "--server-runtime",
        action="store_true",
        help="run MODEL, any artefact, in this process and send frames to it; --threads, --provider, "
        "--delegate and --device are for it",
    )
    parser.add_argument("--certificate", metavar="PEM", help="serve https: certificate chain")
    parser.add_argument("--key", metavar="PEM", help="serve https: private key")
    add_runtime_options(parser)


def _run(args: argparse.Namespace) -> int:
    import secrets
    import webbrowser

    from edge_deeplab.errors import needs

    with needs("web"):
        from edge_deeplab.demos.web.app import is_loopback, server

    _check_runtime(args)
    _check_certificate(args.certificate, args.key)
    token = None if is_loopback(args.host) else secrets.token_urlsafe(16)
    site = _site(args, token)
    listening = _listen(args.host, args.port)
    url = _url(args, listening.getsockname()[1], token)
    where = f"on the {site.live.title} ({site.live.details})" if site.live else "in the browser"
    print(f"{site.model} {where}: {url}\nCtrl-C ends it", flush=True)
    if token and not args.certificate:
        print(
            "Browsers give their camera to https or localhost pages only: from another computer use "
            "--certificate and --key, or an SSH tunnel (docs/demo-web.md)",
            flush=True,
        )
    if args.open:
        webbrowser.open(url)
    server(site, certificate=args.certificate, key=args.key).run(sockets=[listening])
    return 0


def _check_runtime(args: argparse.Namespace) -> None:
    from edge_deeplab.errors import UserError

    for name in ("threads", "provider", "delegate", "device"):
        if getattr(args, name) and not args.server_runtime:
            raise UserError(f"--{name} is for --server-runtime; a browser runs the model in its own way")


def _check_certificate(certificate: str | None, key: str | None) -> None:
    """Before a model is loaded."""
    import ssl

    from edge_deeplab.errors import UserError

    if bool(certificate) != bool(key):
        raise UserError("https needs both --certificate and --key")
    if certificate and key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except OSError as error:  # ssl.SSLError is one, too
            raise UserError(
                f"cannot serve https with {certificate} and {key}: {error.strerror or error}; "
                "both must be PEM files that belong together"
            ) from error


def _site(args: argparse.Namespace, token: str | None) -> Site:
    from edge_deeplab.demos.web.app import Site
    from edge_deeplab.demos.web.live import Live
    from edge_deeplab.errors import UserError
    from edge_deeplab.zoo import find, shipped

    path = find(args.model)
    models = {name: files[".onnx"] for name, files in shipped().items() if ".onnx" in files}
    if path.suffix == ".onnx":
        models = {path.stem: path} | {name: file for name, file in models.items() if name != path.stem}
    elif not args.server_runtime:
        raise UserError(
            f"a browser runs .onnx files only, not {path}: add --server-runtime to run it in this process, "
            f"or make one with `edge-deeplab export {path} --target onnx`"
        )
    live = Live(open_from(args).warmup()) if args.server_runtime else None
    return Site(path.stem, models, live, token)


def _listen(host: str, port: int) -> socket.socket:
    from edge_deeplab.errors import UserError, because

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host} port {port}: {because(error)}; give another --host or --port "
            "(--port 0 takes a free one)"
        ) from error


def _url(args: argparse.Namespace, port: int, token: str | None) -> str:
    """The address to open. The token stands behind ``#``, which browsers do not send to servers or logs."""
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(args.host, args.host)
    if ":" in host:
        host = f"[{host}]"
    scheme = "https" if args.certificate else "http"
    return f"{scheme}://{host}:{port}/" + (f"#token={token}" if token else "")


DEMO = Command("a page that runs the model in the browser, on its camera", _arguments, _run)
