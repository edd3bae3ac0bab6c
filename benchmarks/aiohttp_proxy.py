"""The reference proxy: aiohttp on both sides, uvloop, one client session, nothing else.

python aiohttp_proxy.py PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

UPSTREAM = web.AppKey("upstream", str)
CLIENT = web.AppKey("client", ClientSession)
KEPT = ("Content-Type", "Authorization")


async def relay(request: web.Request) -> web.StreamResponse:
    """Forward a call; a streamed answer chunk by chunk."""
    body = await request.read()
    headers = {name: request.headers[name] for name in KEPT if name in request.headers}
    url = request.app[UPSTREAM] + request.path
    async with request.app[CLIENT].post(url, data=body, headers=headers) as answer:
        if not answer.content_type.startswith("text/event-stream"):
            return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def client(app: web.Application) -> AsyncIterator[None]:
    """One session with unlimited connections, for the application's life."""
    async with ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar()) as session:
        app[CLIENT] = session
        yield


def main() -> None:
    """Serve until ended."""
    uvloop.install()
    app = web.Application(client_max_size=64 << 20)
    app[UPSTREAM] = f"http://127.0.0.1:{sys.argv[2]}"
    app.cleanup_ctx.append(client)
    app.router.add_post("/{path:.*}", relay)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    main()
