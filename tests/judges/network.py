# SPDX-License-Identifier: MIT
"""Judges that speak NBD: fio, qemu-io, qemu-img, nbdcopy, nbdinfo. Each takes a place to work in
and a server whose default export is judged, and raises Failed. Used by run."""

import json
import random

from bench import BYTES, Failed, pattern

MIB = 1 << 20


def nbdinfo(place, server):
    """The size, what a device can do, and a map without gaps."""
    size = int(place.run(["nbdinfo", "--size", server.uri()]))
    if size != BYTES:
        raise Failed(f"the size is {size}, not {BYTES}")
    for ability in ("connect", "flush", "fua", "multi-conn", "zero", "write"):
        place.run(["nbdinfo", "--can", ability, server.uri()])
    extents = json.loads(place.run(["nbdinfo", "--map", "--json", server.uri()]))
    at = 0
    for extent in extents:
        if extent["offset"] != at:
            raise Failed(f"the map says nothing of byte {at}")
        at += extent["length"]
    if at != BYTES:
        raise Failed(f"the map ends at {at}")


def fio(place, server):
    """Random sizes, flushes, several jobs, read back and verified; then where something is trimmed,
    if the device can."""
    common = ["--ioengine=nbd", f"--uri={server.uri()}", f"--randseed={place.seed}",
              "--minimal", "--iodepth=16", "--bsrange=512-64k", "--thread"]
    place.run(["fio", "--name=verify", "--rw=randwrite", "--size=6M", "--numjobs=3",
               "--offset_increment=16M", "--fsync=24", "--verify=crc32c", "--verify_fatal=1",
               "--group_reporting"] + common)
    if not server.can_trim():
        return
    place.run(["fio", "--name=trim", "--rw=randtrimwrite", "--size=4M", "--offset=52M",
               "--fsync=16"] + common)
    place.run(["fio", "--name=again", "--rw=write", "--size=4M", "--offset=52M",
               "--verify=crc32c", "--verify_fatal=1", "--fsync=32"] + common)


def random_commands(seed):
    """For qemu-io, the same for a seed. Several are under way at once, never on the same range."""
    draw = random.Random(seed)
    commands = []
    for number in range(120):
        slot = number % 8
        offset = slot * 8 * MIB + draw.randrange(0, 8 * MIB - 256 * 1024, 512)
        size = draw.choice([512, 4096, 7680, 65536, 200 * 512, 256 * 1024])
        kind = draw.randrange(10)
        if kind < 5:
            commands.append(f"aio_write -P {draw.randrange(1, 256)} {offset} {size}")
        elif kind < 8:
            commands.append(f"aio_read {offset} {size}")
        elif kind < 9:
            commands.append("flush")
        if slot == 7:
            commands.append("aio_flush")
    return commands


def blkverify(place, server):
    """qemu carries out random commands on the device and on a file, and compares all it reads."""
    place.run(["nbdcopy", server.uri(), "reference"])
    words = ["qemu-io", "--image-opts",
             "driver=blkverify,raw.driver=file,raw.filename=reference,"
             f"test.driver=nbd,test.server.type=unix,test.server.path={server.socket}"]
    everything = [f"read {at} 8M" for at in range(0, BYTES, 8 * MIB)]
    for command in random_commands(place.seed) + everything:
        words += ["-c", command]
    place.run(words)
    place.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", "reference", server.uri()])


def qemu_img(place, server):
    """Converted to and from, by requests out of order; compared."""
    pattern(place.path("image"), place.seed + 1)
    place.run(["qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", "image",
               server.uri()])
    place.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", "image", server.uri()])
    place.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri(), "back"])
    place.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", "image", "back"])


def bench(place, server):
    """qemu-img's load of writes with flushes, and what it has left."""
    place.run(["qemu-img", "bench", "-f", "raw", "-w", "--pattern=90", "-c", "1500", "-d", "16",
               "-s", "4608", "--flush-interval=100", "-o", "1M", server.uri()])
    place.run(["qemu-io", "-f", "raw", server.uri(), "-c", f"read -P 90 1M {1500 * 4608}"])


def nbdcopy(place, server):
    """Both ways, by several connections with many requests each."""
    pattern(place.path("image"), place.seed + 2)
    many = ["nbdcopy", "--connections=4", "--requests=32", "--flush"]
    place.run(many + ["image", server.uri()])
    place.run(many + [server.uri(), "back"])
    place.run(["cmp", "image", "back"])


def zeroes(place, server):
    """What is zeroed or trimmed reads as zeroes, and what is around it is kept."""
    words = ["qemu-io", "-f", "raw", server.uri()]
    for command in ("write -P 33 20M 4M", "write -z 21M 512k", "write -z -u 22M 1M", "flush",
                    "read -P 33 20M 1M", "read -P 0 21M 512k", "read -P 33 22016k 512k",
                    "read -P 0 22M 1M", "read -P 33 23M 1M", "write -f -P 34 22M 512",
                    "read -P 34 22M 512", "read -P 0 23069184 4096"):
        words += ["-c", command]
    place.run(words)


JUDGES = [nbdinfo, fio, blkverify, qemu_img, bench, nbdcopy, zeroes]
NEEDED = {
    "nbdinfo": ["nbdinfo"],
    "fio": ["fio"],
    "blkverify": ["qemu-io", "qemu-img", "nbdcopy"],
    "qemu_img": ["qemu-img"],
    "bench": ["qemu-img", "qemu-io"],
    "nbdcopy": ["nbdcopy"],
    "zeroes": ["qemu-io"],
}
