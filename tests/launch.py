"""Starts a program with sockets, as a service manager does, and again each time it ends: the sockets stay open here.

    launch.py SETTINGS PROGRAM [ARGUMENT]...     SETTINGS is a JSON object

`sockets`: what to pass on, each `tcp:HOST:PORT`, `udp:HOST:PORT`, `unix:PATH`, `unix:@NAME`, or one of the mistakes
below. `names`: LISTEN_FDNAMES; `first`: the number of the first descriptor. `starts`: how often (1 without any more of this program: it is executed in its place).
`environment`: further variables; `user`: who runs it; `nonblocking`, `backlog`, `reuseport`: what the sockets are like.
"""

import json
import os
import signal
import socket
import sys



def listener(family, kind, address, settings):
    made = socket.socket(family, kind)
    if family != socket.AF_UNIX:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.get("reuseport"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    if kind == socket.SOCK_STREAM:
        made.listen(settings.get("backlog", 128))
    return made


def make(what, settings):
    kind, _, rest = what.partition(":")
    if kind == "unix":
        address = "\0" + rest[1:] if rest.startswith("@") else rest
        return listener(socket.AF_UNIX, socket.SOCK_STREAM, address, settings)
    if kind in ("tcp", "udp"):
        host, port = rest.rsplit(":", 1)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = (host.strip("[]"), int(port))
        return listener(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM, address, settings)
    if kind == "file":
        return open("/etc/hostname")
    if kind == "connected":
        one = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(one.getsockname())
        KEPT.extend([one, client])
        return one.accept()[0]
    if kind == "pair":
        one, other = socket.socketpair()
        KEPT.append(other)
        return one
    if kind == "datagrams":
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if kind == "unbound":
        return socket.socket()
    if kind == "again":
        return KEPT[0]
    return None


KEPT = []


def main():
    settings, command = json.loads(sys.argv[1]), sys.argv[2:]
    first = settings.get("first", 3)
    numbers = []
    for position, what in enumerate(settings["sockets"]):
        made = make(what, settings)
        if made is None:
            continue
        KEPT.append(made)
        if isinstance(made, socket.socket):
            made.setblocking(not settings.get("nonblocking"))
        # Out of the way first, so that no number is taken twice.
        numbers.append((first + position, os.dup2(made.fileno(), 100 + position)))

    def execute():
        for number, fd in numbers:
            os.dup2(fd, number, inheritable=True)
            os.close(fd)
        environment = dict(os.environ, LISTEN_FDS=str(len(settings["sockets"])), LISTEN_PID=str(os.getpid()))
        if "first" in settings:
            environment["LISTEN_FDS_FIRST_FD"] = str(first)
        if "names" in settings:
            environment["LISTEN_FDNAMES"] = settings["names"]
        environment.update(settings.get("environment", {}))
        if "user" in settings:
            os.setgroups([])
            os.setgid(settings["user"])
            os.setuid(settings["user"])
        os.execvpe(command[0], command, environment)

    starts = settings.get("starts", 1)
    if starts == 1:
        execute()
    child = None
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    for _ in range(starts):
        child = os.fork()
        if child == 0:
            execute()
        os.waitpid(child, 0)


main()
