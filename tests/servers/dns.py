"""A name server on UDP that knows every name: its address is 10.x.y.z, where x.y.z is the generation in base 256.

Takes its socket from LISTEN_FDS, or with the arguments `bind 127.0.0.1:5300` binds it itself. Says READY=1. On SIGTERM it
answers what waits in its queue and ends; with the argument `abrupt` it dies of it. With `work 0.02` every query takes 20 ms.
"""

import os
import select
import signal
import socket
import struct
import sys
import time

FIRST_SOCKET = 3
LARGEST_QUERY = 512
HEADER = struct.Struct("!HHHHHH")
RESPONSE = 0x8000
AUTHORITATIVE = 0x0400
OPCODE = 0x7800
RECURSION_DESIRED = 0x0100
FORMAT_ERROR = 1
NOT_IMPLEMENTED = 4
TYPE_A = 1
CLASS_IN = 1
THE_NAME_ASKED_FOR = 0xC00C

generation = int(os.environ.get("ZDR_GENERATION", "0"))
ending = False


def argument(name, default=None):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def end_of_question(query):
    at = HEADER.size
    while query[at]:
        at += 1 + query[at]
    return at + 1 + 4


def answer(query):
    """The whole message for a query (RFC 1035, section 4); None for what is no query."""
    if len(query) < HEADER.size:
        return None
    number, flags, questions, *_ = HEADER.unpack_from(query)
    if flags & RESPONSE:
        return None
    flags = RESPONSE | AUTHORITATIVE | flags & (OPCODE | RECURSION_DESIRED)
    if flags & OPCODE:
        return HEADER.pack(number, flags | NOT_IMPLEMENTED, 0, 0, 0, 0)
    try:
        end = end_of_question(query)
        asked = struct.unpack_from("!HH", query, end - 4)
    except (IndexError, struct.error):
        questions = 0
    if questions != 1:
        return HEADER.pack(number, flags | FORMAT_ERROR, 0, 0, 0, 0)
    question = query[HEADER.size : end]
    if asked != (TYPE_A, CLASS_IN):
        return HEADER.pack(number, flags, 1, 0, 0, 0) + question
    address = bytes([10]) + generation.to_bytes(3, "big")
    record = struct.pack("!HHHIH", THE_NAME_ASKED_FOR, TYPE_A, CLASS_IN, 0, len(address)) + address
    return HEADER.pack(number, flags, 1, 1, 0, 0) + question + record


def bound(address):
    host, port = address.rsplit(":", 1)
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((host, int(port)))
    return listener


def say_ready():
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", path)


def end(*_):
    global ending
    ending = True


work = float(argument("work", "0"))
address = argument("bind")
listener = bound(address) if address else socket.socket(fileno=FIRST_SOCKET)
waking, wakes = socket.socketpair()
waking.setblocking(False)
wakes.setblocking(False)
if "abrupt" not in sys.argv:
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGTERM, end)
say_ready()
while True:
    if not ending:
        select.select([listener, waking], [], [])
    try:
        query, client = listener.recvfrom(LARGEST_QUERY, socket.MSG_DONTWAIT)
    except BlockingIOError:
        if ending:
            break
        continue
    time.sleep(work)
    if message := answer(query):
        listener.sendto(message, client)
