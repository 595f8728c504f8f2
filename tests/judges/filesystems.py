# SPDX-License-Identifier: MIT
"""Judges that see a device as a disk: file systems made on it and checked, badblocks, and where the
kernel lets us, mounted by a loop device. Used by run."""

import os
import random
import re
import subprocess

from bench import Child, Disk, Failed, Skip

FILES = 60


def tree(place, name, seed):
    """A folder of files of many sizes."""
    draw = random.Random(seed)
    folder = place.path(name)
    for number in range(FILES):
        path = os.path.join(folder, f"d{number % 7}", f"file{number}")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(draw.randbytes(draw.choice([0, 17, 4096, 30000, 200000])))
    return folder


def badblocks(place, server):
    """Writes two patterns to all of a range, and reads them back."""
    with Disk(place, server.uri()) as disk:
        found = place.run(["badblocks", "-w", "-t", "0xa5", "-t", "0x5a", "-b", "4096", "-c", "128",
                           disk.path, "2047", "0"])
    numbers = re.findall(r"^\d+$", found, re.M)
    if numbers:
        raise Failed(f"{len(numbers)} bad blocks, the first {numbers[0]}")


def ext4(place, server):
    """Made, filled by debugfs, checked, read back."""
    folder = tree(place, "tree", place.seed)
    sources = sorted(os.path.join(top, name) for top, _, names in os.walk(folder)
                     for name in names)
    with Disk(place, server.uri()) as disk:
        place.run(["mkfs.ext4", "-q", "-F", "-d", folder, disk.path])
    with Disk(place, server.uri()) as disk:
        place.run(["e2fsck", "-fn", disk.path])
        with open(place.path("script"), "w", encoding="utf-8") as script:
            for number, source in enumerate(sources):
                script.write(f"write {source} again{number}\n")
        place.run(["debugfs", "-w", "-f", "script", disk.path])
    with Disk(place, server.uri()) as disk:
        place.run(["e2fsck", "-fn", disk.path])
        os.makedirs(place.path("dumped"), exist_ok=True)
        with open(place.path("script"), "w", encoding="utf-8") as script:
            for number in range(len(sources)):
                script.write(f"dump again{number} dumped/again{number}\n")
        place.run(["debugfs", "-f", "script", disk.path])
        for number, source in enumerate(sources):
            place.run(["cmp", source, f"dumped/again{number}"])


class Loop:
    """A loop device over a file."""

    def __init__(self, place, path):
        if os.getuid() != 0:
            raise Skip("loop devices need root")
        self.place = place
        result = subprocess.run(["losetup", "-f", "--show", path], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, check=False)
        self.path = result.stdout.decode(errors="replace").strip()
        place.say(f"$ losetup -f --show {path}\n{self.path}")
        if result.returncode:
            raise Skip("no loop device to be had")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["losetup", "-d", self.path], check=False)


class Mount:
    """A file system of a loop device."""

    def __init__(self, place, kind, path):
        self.folder = place.path("mounted")
        os.makedirs(self.folder, exist_ok=True)
        result = subprocess.run(["mount", "-t", kind, path, self.folder], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, check=False)
        place.say(f"$ mount -t {kind} {path}\n{result.stdout.decode(errors='replace')}")
        self.is_mounted = result.returncode == 0
        if not self.is_mounted:
            what = result.stdout.decode(errors="replace")
            if "ermission denied" in what or "unknown filesystem" in what:
                raise Skip(f"{kind} can't be mounted here")
            raise Failed(f"mount: {what.strip()}")

    def unmount(self):
        if self.is_mounted:
            result = subprocess.run(["umount", self.folder], stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, check=False)
            self.is_mounted = False
            if result.returncode:
                raise Failed(f"umount: {result.stdout.decode(errors='replace').strip()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.unmount()
        except Failed:
            subprocess.run(["umount", "-l", self.folder], check=False)


def mounted(place, server, kind, make, check):
    """Copies come and go in a mounted file system; it is clean, and what is left is right."""
    folder = tree(place, "tree", place.seed)
    with Disk(place, server.uri()) as disk, Loop(place, disk.path) as loop:
        place.run(make + [loop.path])
        with Mount(place, kind, loop.path) as mount:
            with Child(place, ["cp", "-r", folder, f"{mount.folder}/beside"]) as beside:
                place.run(["cp", "-r", folder, f"{mount.folder}/one"])
                place.run(["sync", "-f", mount.folder])
                place.run(["cp", "-r", f"{mount.folder}/one", f"{mount.folder}/two"])
                place.run(["rm", "-r", f"{mount.folder}/one"])
                beside.process.wait(timeout=60)
            if server.can_trim():
                place.run(["fstrim", mount.folder])
            mount.unmount()
        place.run(check + [loop.path])
        with Mount(place, kind, loop.path) as mount:
            place.run(["diff", "-r", folder, f"{mount.folder}/two"])
            place.run(["diff", "-r", folder, f"{mount.folder}/beside"])
            mount.unmount()


def mounted_ext4(place, server):
    """By the kernel's ext4."""
    mounted(place, server, "ext4", ["mkfs.ext4", "-q", "-F"], ["e2fsck", "-fn"])


def mounted_xfs(place, server):
    """By the kernel's XFS; the file system is smaller than it likes."""
    mounted(place, server, "xfs", ["mkfs.xfs", "-q", "-f", "--unsupported"], ["xfs_repair", "-n"])


JUDGES = [badblocks, ext4, mounted_ext4, mounted_xfs]
NEEDED = {
    "badblocks": ["badblocks", "nbdfuse"],
    "ext4": ["mkfs.ext4", "e2fsck", "debugfs", "nbdfuse"],
    "mounted_ext4": ["mkfs.ext4", "e2fsck", "losetup", "nbdfuse"],
    "mounted_xfs": ["mkfs.xfs", "xfs_repair", "losetup", "nbdfuse"],
}
