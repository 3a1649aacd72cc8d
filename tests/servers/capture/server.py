"""A server that binds by itself, in every way that servers do: the kernel's part in it, not a framework's.

    server.py [OPTION...] ADDRESS...        ADDRESS: HOST:PORT, /path, @name, udp:HOST:PORT

It answers every request with its generation, and finishes nothing when it is asked to end.
    /bind?PORT     binds and listens on one more port of 127.0.0.1 and answers `bound`, or with the error
    /connect?PORT  connects to that port from a source port of its own choice, and answers what it was sent
    /facts         what it has seen on its way
    /rebind        closes its first listener, and binds its address again after a while
    /storm?PORT    binds and closes, a thousand times each, PORT and a port that the kernel chooses; answers with what failed
"""

import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time

import sandbox

FACTS = []
LISTENERS = {}


def family(address):
    if address.startswith(("/", "@")):
        return socket.AF_UNIX
    return socket.AF_INET6 if address.startswith("[") else socket.AF_INET


def place(address):
    if address.startswith("/"):
        return address
    if address.startswith("@"):
        return "\0" + address[1:]
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


OPTIONS = {
    "keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "keepidle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 11),
    "nodelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    "defer": (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1),
    "rcvbuf": (socket.SOL_SOCKET, socket.SO_RCVBUF, 40000),
    "tos": (socket.IPPROTO_IP, socket.IP_TOS, 0x10),
}


def queue_length(listener):
    """What listen(2) was given: `tcpi_sacked` of a listening socket."""
    return int.from_bytes(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[28:32], sys.byteorder)


def options_of(made):
    return " ".join("%s=%d" % (name, made.getsockopt(*option[:2])) for name, option in OPTIONS.items() if name != "defer")


def stream(address, reuse_port=False):
    made = socket.socket(family(address), socket.SOCK_STREAM)
    if "--options" in sys.argv:
        made.setblocking(False)
        for option in OPTIONS.values():
            made.setsockopt(*option)
    if made.family != socket.AF_UNIX:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "--dual" not in sys.argv)
    if address.startswith("/"):
        try:
            os.unlink(address)
        except FileNotFoundError:
            pass
    made.bind(place(address))
    return made


def attempt(what, call):
    try:
        call()
        FACTS.append(what + ": done")
    except OSError as error:
        FACTS.append(what + ": " + errno.errorcode.get(error.errno, str(error)))


def also_bind(port):
    made = stream("127.0.0.1:" + port)
    made.listen()
    threading.Thread(target=serve, args=(made,), daemon=True).start()
    return "bound"


def connect_from_own_port(port):
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # A client that chooses its port as well binds and never listens.
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        own = chooser.getsockname()[1]
    made.bind(("127.0.0.1", own))
    made.connect(("127.0.0.1", int(port)))
    got = made.recv(100).decode()
    made.close()
    return got


def rebind():
    address, old = next(iter(LISTENERS.items()))
    # A thread waits in accept(2) on the old one, and has the socket as long as that.
    old.shutdown(socket.SHUT_RDWR)
    old.close()
    time.sleep(0.1)
    listen(address)
    return "bound"


def storm(port):
    failed = set()
    for _ in range(1000):
        for number in (0, int(port)):
            try:
                with socket.socket() as made:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made.bind(("127.0.0.1", number))
                    if number not in (0, made.getsockname()[1]):
                        failed.add("another port")
            except OSError as error:
                failed.add(errno.errorcode[error.errno])
    return " ".join(sorted(failed)) or "none failed"


def answer(connection):
    try:
        request = b""
        while b"\r\n\r\n" not in request:
            more = connection.recv(4096)
            if not more:
                return
            request += more
        path, _, argument = request.split(b" ")[1].decode().partition("?")
        try:
            if path == "/bind":
                body = also_bind(argument)
            elif path == "/connect":
                body = connect_from_own_port(argument)
            elif path == "/facts":
                body = "\n".join(FACTS)
            elif path == "/options":
                listener = next(iter(LISTENERS.values()))
                defer = listener.getsockopt(*OPTIONS["defer"][:2])
                body = "%s defer=%d queue=%d" % (options_of(connection), defer, queue_length(listener))
            elif path == "/rebind":
                body = rebind()
            elif path == "/storm":
                body = storm(argument)
            else:
                time.sleep(0.01)
                body = "generation " + os.environ["ZDR_GENERATION"]
        except OSError as error:
            body = errno.errorcode.get(error.errno, str(error))
        head = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        connection.sendall((head + body).encode())
    except OSError:
        pass
    finally:
        connection.close()


def serve(listener):
    while True:
        try:
            if not listener.getblocking():
                select.select([listener], [], [])
            connection, _ = listener.accept()
            connection.setblocking(True)
        except BlockingIOError:
            continue
        except OSError:
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def datagrams(address):
    made = socket.socket(family(address), socket.SOCK_DGRAM)
    made.bind(place(address))
    while True:
        question, client = made.recvfrom(2048)
        made.sendto(question + b" generation " + os.environ["ZDR_GENERATION"].encode(), client)


def in_background(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


def listen(address, reuse_port=False):
    made = stream(address, reuse_port)
    made.listen(128)
    LISTENERS[address] = made
    in_background(serve, made)
    return made


def bound_by_a_helper(address):
    """Another program binds the socket, as privileged helpers do; subprocess starts it with vfork(2) where it can."""
    made = socket.socket(family(address), socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    code = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).bind((sys.argv[2], int(sys.argv[3])))"
    host, port = place(address)
    words = [sys.executable, "-c", code, str(made.fileno()), host, str(port)]
    subprocess.run(words, pass_fds=[made.fileno()], check=True)
    made.listen(128)
    in_background(serve, made)


def in_a_child(address):
    """Binds, and leaves the socket to a child alone."""
    made = stream(address)
    made.listen(128)
    if os.fork() == 0:
        serve(made)
    made.close()


def in_a_grandchild(address):
    """As daemons do: the process that binds is an orphan. The first one stays, so that there is somebody to supervise."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        serve(listen(address))
    os.wait()


WAYS = {
    "thread": lambda address: in_background(listen, address),
    "helper": bound_by_a_helper,
    "child": in_a_child,
    "grandchild": in_a_grandchild,
}


def main():
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    addresses = [word for word in sys.argv[1:] if not word.startswith("--")]
    for option in options:
        name, _, value = option.partition("=")
        if name == "--user":
            os.setgroups([])
            os.setgid(int(value))
            os.setuid(int(value))
        elif name == "--late":
            time.sleep(float(value))
        elif name == "--exit":
            sys.exit(int(value))
        elif name == "--own-watcher":
            attempt("own watcher", lambda: sandbox.notify("bind"))
        elif name == "--sandbox":
            sandbox.give_up_privileges()
            sandbox.forbid({"clone3": errno.ENOSYS, "pidfd_getfd": errno.EPERM})
    if "--say" in options:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        time.sleep(0.3)
    if "--workers" in options:
        # As servers with SO_REUSEPORT do: each process has a socket of its own on the address.
        for _ in range(2):
            if os.fork() == 0:
                break
    for address in addresses:
        if address.startswith("udp:"):
            in_background(datagrams, address[len("udp:"):])
            continue
        way = next((word.partition("=")[2] for word in options if word.startswith("--way=")), None)
        if way:
            WAYS[way](address)
            continue
        made = stream(address, reuse_port="--workers" in options)
        # Some servers look first whether it listens already.
        if "--look" not in options or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            made.listen(77 if "--options" in options else 128)
        if "--twice" in options:
            attempt("second bind", lambda: stream(address))
        if "--again" in options:
            made.close()
            made = stream(address)
            made.listen(128)
        FACTS.append("nonblocking: %s" % (not os.get_blocking(made.fileno())))
        FACTS.append("inheritable: %s" % os.get_inheritable(made.fileno()))
        LISTENERS[address] = made
        in_background(serve, made)
    for option in options:
        if option == "--lock":
            # A server that needs no more than this has nothing else.
            sandbox.give_up_privileges()
            sandbox.forbid({"bind": errno.EPERM, "listen": errno.EPERM})
    while True:
        time.sleep(3600)


main()
