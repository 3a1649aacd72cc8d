"""A server with a thread for each connection, on the socket of LISTEN_FDS. Every request takes 10 ms.

On SIGTERM it accepts nothing more, answers what its clients still ask, and ends; with the argument `abrupt` it dies of it.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORK = 0.010
FAREWELL = 0.5
TICK = 0.05
FIRST_SOCKET = 3

ending = threading.Event()


class Visit(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write for head and body, or Nagle's algorithm and delayed acknowledgements cost 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle_one_request(self):
        if self.another_comes():
            super().handle_one_request()
        else:
            self.close_connection = True

    def another_comes(self):
        patience = FAREWELL
        while not select.select([self.connection], [], [], TICK)[0]:
            if ending.is_set():
                patience -= TICK
            if patience <= 0:
                return False
        return True

    def do_GET(self):
        if self.path != "/health":
            time.sleep(WORK)
        body = f"generation {os.environ.get('ZDR_GENERATION')}\n".encode()
        self.send_response(200)
        self.send_header("X-Generation", os.environ.get("ZDR_GENERATION", ""))
        self.send_header("Content-Length", str(len(body)))
        if ending.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, listener):
        super().__init__(listener.getsockname()[:2], Visit, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def end(*_):
    ending.set()
    # shutdown() waits for serve_forever(), which this very thread runs.
    threading.Thread(target=server.shutdown).start()


server = Server(socket.socket(fileno=FIRST_SOCKET))
if "abrupt" not in sys.argv:
    signal.signal(signal.SIGTERM, end)
server.serve_forever(poll_interval=TICK)
server.server_close()
