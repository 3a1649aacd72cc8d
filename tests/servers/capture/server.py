"""A server that binds by itself, in every way that servers do: the kernel's part in it, not a framework's.

    server.py [OPTION...] ADDRESS...        ADDRESS: HOST:PORT, /path, @name, udp:HOST:PORT

It answers every request with its generation, and finishes nothing when it is asked to end.
    /bind?PORT     binds and listens on one more port of 127.0.0.1 and answers `bound`, or with the error
    /connect?PORT  connects to that port from a source port of its own choice, and answers what it was sent
    /facts         what it has seen on its way
"""

import errno
import os
import socket
import sys
import threading
import time

FACTS = []


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


def stream(address, reuse_port=False, v6only=True):
    made = socket.socket(family(address), socket.SOCK_STREAM)
    if made.family != socket.AF_UNIX:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
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
            connection, _ = listener.accept()
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
    if "--workers" in options:
        # As servers with SO_REUSEPORT do: each process has a socket of its own on the address.
        for _ in range(2):
            if os.fork() == 0:
                break
    for address in addresses:
        if address.startswith("udp:"):
            in_background(datagrams, address[len("udp:"):])
            continue
        made = stream(address, reuse_port="--workers" in options)
        made.listen(128)
        if "--twice" in options:
            attempt("second bind", lambda: stream(address))
        if "--again" in options:
            made.close()
            made = stream(address)
            made.listen(128)
        FACTS.append("nonblocking: %s" % (not os.get_blocking(made.fileno())))
        FACTS.append("inheritable: %s" % os.get_inheritable(made.fileno()))
        in_background(serve, made)
    while True:
        time.sleep(3600)


main()
