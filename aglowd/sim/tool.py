"""The body of every simulated executable: hand the call to the simulator, and do what it says.

It must start fast (a demo starts thousands), so it imports nothing but what the interpreter has built in: `_socket` is
the C half of `socket`, whose Python half costs more than everything else here together. The installed copy begins
with a shebang of its own and finds the simulator's socket beside itself, so a scrubbed environment does no harm.
"""

import _socket
import os
import sys
import time

KEEPS_PIPE_S = 30
MEGABYTE = b"x" * 999_999 + b"\n"
JOB_IDS = (b"AGLOWD_JOB_ID", b"SLURM_JOB_ID")
"""What tells that a pilot started us, and which: the client has no such variable."""


def send(sock: "_socket.socket", fields: "list[bytes]") -> None:
    """One frame: how many fields, then each with its length."""
    parts = [len(fields).to_bytes(4, "big")]
    for field in fields:
        parts += [len(field).to_bytes(4, "big"), field]
    sock.sendall(b"".join(parts))


def receive(sock: "_socket.socket") -> "list[bytes]":
    """One frame; ends the process when the simulator is gone."""
    return [take(sock, number(sock)) for _ in range(number(sock))]


def number(sock: "_socket.socket") -> int:
    return int.from_bytes(take(sock, 4), "big")


def take(sock: "_socket.socket", size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            lost()
        data += part
    return data


def lost() -> None:
    os.write(2, b"Connection refused: the simulated grid is not running\n")
    os._exit(111)


def obey(order: "list[bytes]") -> "list[bytes]":
    """Read or write one file of the caller's, or make a directory, as the real tool would; or misbehave, as it would too."""
    verb, path = order[0], order[1]
    if verb in (b"say", b"flood", b"fork", b"die"):
        return misbehave(verb, path)
    try:
        if verb == b"mkdir":
            os.makedirs(path, exist_ok=True)
            return [b"ok", b""]
        if verb == b"read":
            with open(path, "rb") as file:
                return [b"ok", file.read()]
        with open(path, "ab" if verb == b"append" else "wb") as file:
            file.write(order[2])
        return [b"ok", b""]
    except OSError as error:
        return [b"no", os.fsencode(error.strerror or "")]


def misbehave(verb: bytes, argument: bytes) -> "list[bytes]":
    """Print without an end, print too much, leave a child behind that keeps the pipes open, or be killed."""
    if verb == b"die":
        os.kill(os.getpid(), 9)
    elif verb == b"say":
        sys.stdout.buffer.write(argument)
        sys.stdout.buffer.flush()
    elif verb == b"flood":
        for _ in range(int(argument) // len(MEGABYTE)):
            os.write(1, MEGABYTE)
    elif os.fork() == 0:
        time.sleep(KEEPS_PIPE_S)
        os._exit(0)
    return [b"ok", b""]


def main() -> None:
    here = os.path.dirname(os.path.abspath(sys.argv[0]))
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        with open(os.path.join(here, ".socket"), "rb") as file:
            sock.connect(file.read())
    except OSError:
        lost()
    environment = [os.environb.get(name, b"") for name in (b"X509_USER_PROXY", b"HOME")]
    environment.append(next(filter(None, map(os.environb.get, JOB_IDS)), b""))
    name = os.path.basename(sys.argv[0])
    send(sock, [os.fsencode(name), os.getcwdb(), *environment, *map(os.fsencode, sys.argv[1:])])
    while True:
        order = receive(sock)
        if order[0] == b"exit":
            sys.stdout.buffer.write(order[2])
            sys.stdout.buffer.flush()
            sys.stderr.buffer.write(order[3])
            sys.stderr.buffer.flush()
            os._exit(int(order[1]))
        send(sock, obey(order))


if __name__ == "__main__":
    main()
