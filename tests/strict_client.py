#!/usr/bin/env python3
"""A strict client: asks again and again, each time on a new connection, and counts every answer that is not perfect.

    strict_client.py URL THREADS     says `begun` at the first answer; at SIGTERM prints one JSON object

A refused, reset or cut connection, a status other than 200 and an answer that takes longer than its limit are failures,
each under its name. Nothing is ever tried again.
"""

import collections
import json
import signal
import socket
import sys
import threading
import time
import urllib.parse

LIMIT = 5.0
PAUSE = 0.002


def ask(host, port, path):
    """The generation that answered. An OSError or ValueError says what was not perfect."""
    with socket.create_connection((host, port), timeout=LIMIT) as connection:
        connection.settimeout(LIMIT)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while part := connection.recv(65536):
            answer += part
    head, found, body = bytes(answer).partition(b"\r\n\r\n")
    if not found:
        raise ValueError("no answer" if not answer else "cut head")
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if lines[0].split(" ")[1] != "200":
        raise ValueError("status " + lines[0].split(" ")[1])
    if len(body) != int(fields.get("content-length", "-1")):
        raise ValueError("cut body")
    return fields.get("x-generation", "?")


class Client(threading.Thread):
    def __init__(self, url, end):
        super().__init__()
        parts = urllib.parse.urlsplit(url)
        self.where = (parts.hostname, parts.port, parts.path or "/")
        self.end = end
        self.answers = collections.Counter()
        self.failures = collections.Counter()
        self.slowest = 0.0

    def run(self):
        while not self.end.is_set():
            begun = time.monotonic()
            try:
                self.answers[ask(*self.where)] += 1
            except (OSError, ValueError) as error:
                self.failures[str(error) if isinstance(error, ValueError) else type(error).__name__] += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            time.sleep(PAUSE)


def main():
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    clients = [Client(sys.argv[1], end) for _ in range(int(sys.argv[2]))]
    for client in clients:
        client.start()
    while not any(client.answers for client in clients):
        time.sleep(PAUSE)
    print("begun", flush=True)
    end.wait()
    for client in clients:
        client.join()
    answers = sum((client.answers for client in clients), collections.Counter())
    failures = sum((client.failures for client in clients), collections.Counter())
    json.dump({
        "requests": sum(answers.values()) + sum(failures.values()),
        "failed": sum(failures.values()),
        "failures": failures,
        "generations": len(answers),
        "slowest_ms": round(max(client.slowest for client in clients) * 1000),
    }, sys.stdout)
    print()


if __name__ == "__main__":
    main()
