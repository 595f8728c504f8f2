# SPDX-License-Identifier: MIT
"""Judges of what a device makes of trouble below it: legs that fail, disks that are late, ranges
that refuse writes, caches that lose with their power what no flush covers. The disks below are
files of nbdfuse, served by nbdkit's plugins and filters or by qemu. Used by run."""

import os
import signal

from bench import Child, Disk, Failed, SECTORS, Server, empty, plugin_words, wait_until
import network

MIB = 1 << 20


def served(place, arguments):
    return Server(place, plugin_words(place, arguments))


def failing_leg(place, table):
    """fio on a device with a disk that fails writes now and then."""
    words = ["--filter=error", "memory", "64M", "error-pwrite=EIO", "error-pwrite-rate=5%"]
    with Server(place, words, "below") as below:
        with Disk(place, below.uri(), "bad") as bad:
            with served(place, [table.replace("BAD", bad.path)]) as server:
                network.fio(place, server)
        if below.has_ended():
            raise Failed("the server below has ended")


def mirror_with_a_failing_leg(place):
    """The mirror goes on without it: every read is verified."""
    empty(place.path("a"))
    failing_leg(place, f"0 {SECTORS} mirror core 2 1024 nosync 2 a 0 BAD 0")


def without_a_mirror(place):
    """The same disk alone fails fio's writes."""
    failing_leg(place, f"0 {SECTORS} linear BAD 0")


def late_disk(place):
    """A stripe answers late: nothing is confused with anything else."""
    words = ["--filter=delay", "memory", "32M", "rdelay=2ms", "wdelay=3ms"]
    empty(place.path("a"), 32 * MIB)
    with Server(place, words, "below") as below, Disk(place, below.uri(), "late") as late:
        with served(place, [f"0 {SECTORS} striped 2 128 a 0 {late.path} 0"]) as server:
            network.blkverify(place, server)


def protected_range(place):
    """What may not be written below is an error above, there and nowhere else."""
    words = ["--filter=protect", "memory", "64M", "protect=8388608-9437183"]
    with Server(place, words, "below") as below, Disk(place, below.uri(), "part") as part:
        with served(place, [f"0 65536 linear {part.path} 0\n65536 65536 linear {part.path} 65536"]
                    ) as server:
            place.run(["qemu-io", "-f", "raw", server.uri(), "-c", "write -f -P 1 0 8M",
                       "-c", "write -f -P 2 9M 8M"])
            place.run(["qemu-io", "-f", "raw", server.uri(), "-c", "write -f -P 3 8M 64k"],
                      wanted=1)
            place.run(["qemu-io", "-f", "raw", server.uri(), "-c", "read -P 1 0 8M",
                       "-c", "read -P 0 8M 1M", "-c", "read -P 2 9M 8M"])


def qemu_disk(place, options):
    """A server of qemu's."""
    return Child(place, ["qemu-nbd", "-t", "-k", place.path("qemu.sock"), "--image-opts", options])


def qemu_uri(place, server):
    path = place.path("qemu.sock")
    wait_until(lambda: server.has_ended() or os.path.exists(path), 20, "qemu-nbd didn't begin")
    if server.has_ended():
        raise Failed("qemu-nbd ended at once")
    return f"nbd+unix:///?socket={path}"


def failing_sector(place):
    """A sector that qemu's blkdebug fails to write is an error above, there and nowhere else."""
    empty(place.path("part"))
    options = ("driver=blkdebug,image.driver=file,image.filename=part,inject-error.0.event=none,"
               "inject-error.0.iotype=write,inject-error.0.sector=16384")
    with qemu_disk(place, options) as below:
        with Disk(place, qemu_uri(place, below), "part") as part:
            with served(place, [f"0 {SECTORS} striped 1 128 {part.path} 0"]) as server:
                place.run(["qemu-io", "-f", "raw", server.uri(), "-c", "write -f -P 1 0 8M"])
                place.run(["qemu-io", "-f", "raw", server.uri(), "-c", "write -f -P 2 8M 4k"],
                          wanted=1)
                # A durable write would fail: the file below has failed one.
                place.run(["qemu-io", "-t", "writeback", "-f", "raw", server.uri(),
                           "-c", "write -P 3 9M 1M",
                           "-c", "read -P 1 0 8M", "-c", "read -P 3 9M 1M"])


def logged_writes(place):
    """What qemu's blklogwrites has seen below a stack, carried out by dmcat, is the disk."""
    for name in ("disk", "log", "copy"):
        empty(place.path(name))
    options = ("driver=blklogwrites,file.driver=file,file.filename=disk,log.driver=file,"
               "log.filename=log,log-sector-size=512")
    with qemu_disk(place, options) as below:
        with Disk(place, qemu_uri(place, below), "logged") as logged:
            with served(place, [f"0 {SECTORS} linear {logged.path} 0"]) as server:
                network.blkverify(place, server)
    place.run([place.options.dmcat, "replay", "log", "copy"])
    place.run(["cmp", "disk", "copy"])


# ---- power cuts ---------------------------------------------------------------------------------

CUT_STACKS = {
    "linear": f"0 {SECTORS} linear CACHED 0",
    "striped": "0 131072 striped 2 64 CACHED 0 CACHED 65536",
    "mirror": f"0 {SECTORS} mirror core 2 1024 nosync 2 CACHED 0 other 0",
}


def cut(place, table, commands):
    """Carries out commands on a disk with a cache that is lost at their end; returns nothing, the
    disk is the file `disk`."""
    empty(place.path("disk"))
    empty(place.path("other"))
    words = ["--filter=cache", "file", place.path("disk"), "cache=writeback"]
    with Server(place, words, "below") as below:
        with Disk(place, below.uri(), "cached") as cached:
            with served(place, [table.replace("CACHED", cached.path)]) as server:
                words = ["qemu-io", "-t", "writeback", "-f", "raw"]
                for command in commands:
                    words += ["-c", command]
                # qemu-io flushes what it has opened when it ends: it doesn't get that far.
                place.run(words + ["-c", "sigraise 9", server.uri()], wanted=-signal.SIGKILL)
                below.end(signal.SIGKILL)


def read_after_cut(place, table, command):
    with served(place, [table.replace("CACHED", "disk")]) as server:
        place.run(["qemu-io", "-r", "-f", "raw", server.uri(), "-c", command])


def flushed_is_kept(place):
    """After a cut what a flush or FUA has covered is there."""
    for table in CUT_STACKS.values():
        cut(place, table, ["write -P 1 0 4M", "flush", "write -f -P 2 6M 64k", "write -P 9 9M 64k"])
        read_after_cut(place, table, "read -P 1 0 4M")
        read_after_cut(place, table, "read -P 2 6M 64k")


def unflushed_is_lost(place):
    """Without a flush the same is missing: the cut is one."""
    cut(place, CUT_STACKS["linear"], ["write -P 1 0 4M"])
    read_after_cut(place, CUT_STACKS["linear"], "read -P 1 0 4M")


JUDGES = [mirror_with_a_failing_leg, late_disk, protected_range, failing_sector, logged_writes,
          flushed_is_kept]
# What must fail.
CONTROLS = [without_a_mirror, unflushed_is_lost]
NEEDED = {
    "mirror_with_a_failing_leg": ["fio"],
    "without_a_mirror": ["fio"],
    "late_disk": ["qemu-io", "qemu-img", "nbdcopy"],
    "protected_range": ["qemu-io"],
    "failing_sector": ["qemu-nbd", "qemu-io"],
    "logged_writes": ["qemu-nbd", "qemu-io", "qemu-img", "nbdcopy"],
    "flushed_is_kept": ["qemu-io"],
    "unflushed_is_lost": ["qemu-io"],
}
