"""Runs a program under a seccomp filter, as containers and careful servers do.

    sandbox.py NAME=ERRNO[,NAME=ERRNO...] PROGRAM [ARGUMENT...]      sandbox.py pidfd_getfd=EPERM,clone3=ENOSYS zdr run …

Imported, `forbid({"bind": errno.EPERM})` puts the calling thread and what it starts under such a filter, and `notify("bind")`
has them wait for an answer that never comes, and gives the descriptor of the filter.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

X86 = platform.machine() == "x86_64"
NUMBERS = {
    "bind": 49 if X86 else 200,
    "listen": 50 if X86 else 201,
    "clone3": 435,
    "pidfd_getfd": 438,
    "prctl": 157 if X86 else 167,
    "seccomp": 317 if X86 else 277,
}
NO_NEW_PRIVS = 38
SET_MODE_FILTER, NEW_LISTENER = 1, 8
ERRNO, ALLOW, NOTIFY = 0x0005_0000, 0x7FFF_0000, 0x7FC0_0000

libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def install(answers, flags):
    """Answers calls by number, in the order of the kernel's instructions: code, jump if true, jump if not, value."""
    code = struct.pack("HBBI", 0x20, 0, 0, 0)
    for name, answer in answers.items():
        code += struct.pack("HBBI", 0x15, 0, 1, NUMBERS[name]) + struct.pack("HBBI", 0x06, 0, 0, answer)
    code += struct.pack("HBBI", 0x06, 0, 0, ALLOW)
    program = Program(len(code) // 8, code)
    done = libc.syscall(NUMBERS["seccomp"], SET_MODE_FILTER, flags, ctypes.byref(program))
    if done < 0:
        raise OSError(ctypes.get_errno(), "cannot install a filter")
    return done


def forbid(errors):
    install({name: ERRNO | number for name, number in errors.items()}, 0)


def notify(name):
    return install({name: NOTIFY}, NEW_LISTENER)


def give_up_privileges():
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)


if __name__ == "__main__":
    if os.geteuid() != 0:
        give_up_privileges()
    words = (word.split("=") for word in sys.argv[1].split(","))
    forbid({name: getattr(errno, value) for name, value in words})
    os.execvp(sys.argv[2], sys.argv[2:])
