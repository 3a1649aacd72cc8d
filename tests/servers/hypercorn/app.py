"""An ASGI application. Every request takes 10 ms."""

import asyncio
import os

WORK = 0.010
GENERATION = os.environ.get("ZDR_GENERATION", "").encode()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await live(receive, send)
    if scope["path"] != "/health":
        await asyncio.sleep(WORK)
    body = b"generation %s\n" % GENERATION
    headers = [(b"x-generation", GENERATION), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(receive, send):
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": message["type"] + ".complete"})
    await send({"type": "lifespan.shutdown.complete"})
