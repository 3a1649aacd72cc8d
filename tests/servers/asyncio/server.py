"""A server on asyncio, on the socket of LISTEN_FDS. Every request takes 10 ms.

On SIGTERM it accepts nothing more, answers what its clients still ask, and ends; with the argument `abrupt` it dies of it.
"""

import asyncio
import os
import signal
import socket
import sys

WORK = 0.010
FAREWELL = 0.5
FIRST_SOCKET = 3
GENERATION = os.environ.get("ZDR_GENERATION", "")


class Server:
    def __init__(self):
        self.ending = asyncio.Event()
        self.visits = set()

    async def serve(self):
        listener = await asyncio.start_server(self.receive, sock=socket.socket(fileno=FIRST_SOCKET))
        if "abrupt" not in sys.argv:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.ending.set)
        await self.ending.wait()
        listener.close()
        # A connection accepted in this very turn of the loop has no task yet.
        await asyncio.sleep(0)
        while self.visits:
            await asyncio.wait(self.visits)

    async def receive(self, reader, writer):
        visit = asyncio.current_task()
        self.visits.add(visit)
        try:
            await self.answer_all(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.visits.discard(visit)

    async def answer_all(self, reader, writer):
        while head := await self.next_request(reader):
            if b" /health " not in head:
                await asyncio.sleep(WORK)
            keeps = b"connection: close" not in head.lower() and not self.ending.is_set()
            writer.write(answer(keeps))
            await writer.drain()
            if not keeps:
                return

    async def next_request(self, reader):
        reading = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        told = asyncio.ensure_future(self.ending.wait())
        await asyncio.wait([reading, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        try:
            return await asyncio.wait_for(reading, FAREWELL)
        except (asyncio.IncompleteReadError, asyncio.TimeoutError):
            return None


def answer(keeps):
    body = f"generation {GENERATION}\n"
    connection = "" if keeps else "Connection: close\r\n"
    head = f"HTTP/1.1 200 OK\r\nX-Generation: {GENERATION}\r\nContent-Length: {len(body)}\r\n{connection}\r\n"
    return (head + body).encode()


async def main():
    await Server().serve()


asyncio.run(main())
