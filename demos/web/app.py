"""The HTTP side: the page, the models it may run, and who may ask for them."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from edge_deeplab.demos.web.live import MOST_BYTES, PROTOCOL, Live
from edge_deeplab.version import __version__

PAGE = Path(__file__).resolve().parent / "page"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self' {socket}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The browser itself keeps the page from sending anything anywhere but back to this server."""

HEADERS = {
    # These two make the page "cross-origin isolated": only such pages get shared memory, so WASM threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    "": "text/plain; charset=utf-8",
}
"""Python's own table depends on files of the system; a browser refuses modules of the wrong type."""


@dataclass(frozen=True)
class Site:
    """What is served.

    Attributes:
        model: Name of the model asked for.
        models: Name -> ``.onnx`` file of every model that the browser may run.
        live: The Python runtime, where ``--server-runtime`` asks for one.
        token: What a client must know; None on loopback.
    """

    model: str
    models: Mapping[str, Path]
    live: Live | None = None
    token: str | None = None

    def knows(self, token: str) -> bool:
        """Whether a client may come in."""
        return self.token is None or secrets.compare_digest(token.encode(), self.token.encode())


def build(site: Site) -> ASGIApp:
    """The application, checks and headers included."""

    async def config(request: Request) -> Response:
        if not site.knows(_bearer(request)):
            return PlainTextResponse("a token is needed", 401)
        return JSONResponse(
            {
                "version": __version__,
                "model": site.model,
                "models": [{"name": name} for name in site.models],
                "server": {"title": site.live.title} if site.live else None,
            }
        )

    async def model(request: Request) -> Response:
        if not site.knows(_bearer(request)):
            return PlainTextResponse("a token is needed", 401)
        path = site.models.get(request.path_params["name"])
        if path is None:
            return PlainTextResponse("no such model", 404)
        return FileResponse(path, media_type="application/octet-stream")

    async def segment(socket: WebSocket) -> None:
        offered = socket.scope["subprotocols"]
        token = next((p.removeprefix("token.") for p in offered if p.startswith("token.")), "")
        if site.live is None or PROTOCOL not in offered or not _same_origin(socket) or not site.knows(token):
            await socket.close()  # before it was accepted: the browser is told 403
            return
        await site.live.serve(socket)

    routes = [
        Route("/config.json", config),
        Route("/models/{name}.onnx", model),
        WebSocketRoute("/segment", segment),
        Mount("/", Page(directory=PAGE, html=True)),
    ]
    return Guard(Starlette(routes=routes), any_host=site.token is not None)


def server(site: Site, *, certificate: str | None = None, key: str | None = None) -> uvicorn.Server:
    """What runs it; give :meth:`run` the listening sockets."""
    return uvicorn.Server(
        uvicorn.Config(
            build(site),
            log_level="warning",
            lifespan="off",
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=MOST_BYTES,
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
    )


class Page(StaticFiles):
    """The static files; WASM lies there gzipped, which is also how it is sent."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file with the media type that browsers insist on."""
        wasm = path.endswith(".wasm")
        response = await super().get_response(path + ".gz" if wasm else path, scope)
        if wasm:
            response.headers["Content-Type"] = "application/wasm"
            response.headers["Content-Encoding"] = "gzip"
        elif response.status_code == 200:
            suffix = ".html" if path == "." else Path(path).suffix
            response.headers["Content-Type"] = MEDIA_TYPES.get(suffix, "application/octet-stream")
        return response


class Guard:
    """Refuses foreign ``Host`` headers, and adds :data:`HEADERS` to every answer.

    A page from elsewhere can point its own host name at 127.0.0.1 (DNS rebinding) and would then be of the
    same origin as this server. Where a token is needed anyway, any name may be used.
    """

    def __init__(self, app: ASGIApp, *, any_host: bool) -> None:
        self.app, self.any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        if not self.any_host and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).close()
            else:
                refusal = PlainTextResponse("this server answers to localhost only", 400)
                await refusal(scope, receive, send)
            return
        secure = scope["scheme"] in ("https", "wss")
        policy = POLICY.format(socket=f"{'wss' if secure else 'ws'}://{host}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "Content-Security-Policy": policy})
            await send(message)

        await self.app(scope, receive, send_with_headers)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this computer alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _same_origin(socket: WebSocket) -> bool:
    """Browsers always send the origin of the page; other programs need not."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
