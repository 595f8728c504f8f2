#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sends a control socket what no libdevmapper would. Called by dmsetup.sh.

usage: hostile-control.py SOCKET
"""

import random
import socket
import struct
import sys

MAGIC = 0x31636d64
IOCTL_BYTES = 312
COMMANDS = 20
NAMES = (b"victim", b"", b"absent", b"x" * 128, b"a/b", b".", b"victim\0junk")
# Kept out, since they would take the victim away: REMOVE_ALL, REMOVE, RENAME, SUSPEND, LOAD; and
# WAIT, which waits.
KEPT_OUT = {1, 4, 5, 6, 8, 9}


def request(command, folder, data, magic=MAGIC, data_bytes=None):
    return struct.pack("<IIII", magic, command, len(folder),
                       len(data) if data_bytes is None else data_bytes) + folder + data


def parameters(rng, size, name, random_bytes):
    data = bytearray(size)
    if random_bytes:
        data[:] = rng.randbytes(size)
    struct.pack_into("<IIIII", data, 0, 4, rng.choice((0, 48, 99)), 0, size,
                     rng.choice((0, 305, 311, 312, 313, 316, 320, size - 1, size, size + 1,
                                 0xffffffff)))
    struct.pack_into("<IiI", data, 20, rng.choice((0, 1, 2, 0xffffffff)), 0,
                     rng.choice((0, 1 << 4, 1 << 12, 1 << 14, rng.getrandbits(32))))
    struct.pack_into("<Q", data, 40, rng.choice((0, 0, 0, 0xfff00, rng.getrandbits(64))))
    data[48:48 + 128] = name[:128].ljust(128, b"\0")
    if rng.random() < 0.8:
        data[176:176 + 129] = bytes(129)
    return bytes(data)


def receive(connection, count):
    got = b""
    while len(got) < count:
        piece = connection.recv(count - len(got))
        if not piece:
            return None
        got += piece
    return got


def answered(connection, asked_bytes):
    """Whether there is an answer, which then keeps to the rules."""
    header = receive(connection, 16)
    if header is None:
        return False
    magic, error, data_bytes, message_bytes = struct.unpack("<IiII", header)
    assert magic == MAGIC and 0 <= error < 200, header
    assert data_bytes <= asked_bytes and message_bytes <= 1024, header
    assert receive(connection, data_bytes + message_bytes) is not None
    return True


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(path)
    return connection


def main():
    path = sys.argv[1]
    rng = random.Random(1)
    answers = 0
    connection = connect(path)
    for number in range(3000):
        command = rng.choice([c for c in range(COMMANDS + 3) if c not in KEPT_OUT] + [1 << 31])
        size = rng.choice((IOCTL_BYTES, IOCTL_BYTES + 1, 320, 400, 16384))
        name = rng.choice(NAMES)
        # A device is made again and again; it is there already.
        if command == 3:
            name = b"victim"
        data = parameters(rng, size, name, rng.random() < 0.3)
        connection.sendall(request(command, b"/", data))
        if answered(connection, size):
            answers += 1
        else:
            connection = connect(path)
    assert answers == 3000, answers

    # Tables whose targets are where nothing is. The victim's table isn't made live.
    for number in range(500):
        data = bytearray(parameters(rng, 1024, b"victim", False))
        struct.pack_into("<II", data, 16, 312, rng.choice((1, 2, 40, 0xffffffff)))
        data[24:28] = bytes(4)
        struct.pack_into("<I", data, 28, 0)
        struct.pack_into("<Q", data, 40, 0)
        struct.pack_into("<QQiI", data, 312, 0, rng.choice((0, 8, 1 << 63)), 0,
                         rng.choice((0, 1, 40, 44, 48, 600, 712, 0xfffffff0)))
        data[336:352] = rng.choice((b"zero", b"z" * 16, b"linear")).ljust(16, b"\0")
        if rng.random() < 0.3:
            data[352:] = b"\xff" * (len(data) - 352)
        connection.sendall(request(9, b"/", bytes(data)))
        assert answered(connection, len(data))
    connection.sendall(request(10, b"/", parameters(random.Random(2), 312, b"victim", False)))
    answered(connection, 312)

    # What isn't a request ends the connection, and nothing else.
    for bad in (request(0, b"/", bytes(312), magic=1), request(0, b"", bytes(0)),
                request(0, b"/", bytes(100)), request(0, b"x" * 4096, bytes(312)),
                request(0, b"/", bytes(312), data_bytes=1 << 31),
                request(0, b"/", parameters(rng, 400, b"", False)[:312] + bytes(88),
                        data_bytes=400)[:-8], b"short"):
        connection = connect(path)
        connection.sendall(bad)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
        connection.close()

    # More clients than there may be.
    many = [connect(path) for _ in range(140)]
    for connection in many:
        connection.close()


main()
