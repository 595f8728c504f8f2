# SPDX-License-Identifier: MIT
"""The bench of the judges: folders to work in, servers of mapped devices, and the stacks of devices
that are judged. Used by run and the judges."""

import json
import os
import shutil
import signal
import subprocess
import time

SECTORS = 131072
BYTES = SECTORS * 512
START_SECONDS = 20
END_SECONDS = 30


class Failed(Exception):
    """A judge's verdict, in a sentence."""


class Skip(Exception):
    """What is missing here."""


def pattern(path, seed, size=BYTES):
    """Data in which no 4 KiB is like another, with holes in between."""
    with open(path, "wb") as file:
        for at in range(0, size, 65536):
            if (at // 65536 * 7 + seed) % 5 < 2:
                continue
            file.seek(at)
            file.write(b"".join(b"%08d %06d\n" % (seed, (at + i) // 16)
                                for i in range(0, 65536, 16)))
        file.truncate(size)


def empty(path, size=BYTES):
    with open(path, "wb") as file:
        file.truncate(size)


class Place:
    """A folder of its own for one stack on one backend, a log, and all that is started there."""

    def __init__(self, options, name, backend):
        self.options, self.name, self.backend = options, name, backend
        self.folder = os.path.join(options.folder, f"{name}-{backend}")
        os.makedirs(self.folder)
        self.log_path = os.path.join(options.logs, f"{name}-{backend}.log")
        self.log = open(self.log_path, "w", encoding="utf-8")
        self.seed = sum(map(ord, name))

    def path(self, name):
        return os.path.join(self.folder, name)

    def say(self, text):
        self.log.write(text + "\n")
        self.log.flush()

    def run(self, words, seconds=60, wanted=0):
        """Output of a command that must end with this status; None: with any but 0."""
        self.say("$ " + " ".join(words))
        try:
            result = subprocess.run(words, cwd=self.folder, stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{words[0]} was still running after {seconds} s") from error
        output = result.stdout.decode(errors="replace")
        self.say(f"{output[-4000:]}[status {result.returncode}]")
        good = result.returncode == wanted if wanted is not None else result.returncode > 0
        if not good:
            lines = [line for line in output.splitlines() if line.strip()] or ["no output"]
            raise Failed(f"{words[0]} ended with {result.returncode}: {lines[-1][:200]}")
        return output

    def close(self):
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what} within {seconds} s")
        time.sleep(0.02)


class Child:
    """A program in the background, ended at the end of a `with`."""

    def __init__(self, place, words):
        self.place = place
        place.say("& " + " ".join(words))
        self.process = subprocess.Popen(words, cwd=place.folder, stdin=subprocess.DEVNULL,
                                        stdout=place.log, stderr=subprocess.STDOUT)

    def has_ended(self):
        return self.process.poll() is not None

    def end(self, how=signal.SIGTERM):
        """The exit status, negative for a signal."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Server(Child):
    """An nbdkit on a socket of its own."""

    count = 0

    def __init__(self, place, words, name="server"):
        self.socket = place.path(f"{name}.sock")
        pid = place.path(f"{name}.pid")
        for path in (self.socket, pid):
            if os.path.exists(path):
                os.unlink(path)
        super().__init__(place, ["nbdkit", "-f", "-U", self.socket, "-P", pid] + words)
        wait_until(lambda: self.has_ended() or os.path.exists(pid), START_SECONDS,
                   "nbdkit didn't begin")
        if self.has_ended():
            raise Failed(f"nbdkit ended with {self.process.returncode} at once")

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def can_trim(self):
        """Snapshots can't, unless their tables say otherwise."""
        facts = json.loads(self.place.run(["nbdinfo", "--json", self.uri()]))
        return facts["exports"][0]["can_trim"]


def plugin_words(place, arguments):
    return [place.options.plugin, f"backend={place.backend}"] + arguments


class Disk:
    """A device of a server as a file, by nbdfuse."""

    def __init__(self, place, uri, name="disk", direct=False):
        self.place = place
        self.mountpoint = place.path(f"{name}.mount")
        self.path = os.path.join(self.mountpoint, name)
        if not (shutil.which("nbdfuse") and shutil.which("fusermount3")):
            raise Skip("no nbdfuse")
        if not os.access("/dev/fuse", os.W_OK):
            raise Skip("no /dev/fuse")
        os.makedirs(self.mountpoint, exist_ok=True)
        self.child = Child(place, ["nbdfuse", self.path, uri])
        try:
            wait_until(lambda: self.child.has_ended() or os.path.exists(self.path),
                       START_SECONDS, "nbdfuse didn't begin")
        except Failed:
            self.close()
            raise
        if self.child.has_ended():
            raise Skip("nbdfuse can't mount here")

    def close(self):
        subprocess.run(["fusermount3", "-u", self.mountpoint], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.child.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- what is judged -----------------------------------------------------------------------------

class Stack:
    """Tables, the files below them, and what must be so when the server has ended."""

    def __init__(self, name, arguments, files, kept=None):
        self.name, self.arguments, self.files, self.kept = name, arguments, files, kept

    def prepare(self, place):
        for file, size in self.files.items():
            if file in ("origin", "kept"):
                pattern(place.path(file), place.seed, size)
            else:
                empty(place.path(file), size)


def origin_kept(place):
    """What a snapshot stands on was only read."""
    pattern(place.path("expected"), place.seed)
    place.run(["cmp", "origin", "expected"])


def legs_same(place):
    place.run(["cmp", "a", "b"])


def leg_untouched(place):
    empty(place.path("expected"))
    place.run(["cmp", "f", "expected"])


def snapshot_kept(place):
    """What has been written to the origin isn't seen in the snapshot."""
    pattern(place.path("expected"), place.seed)
    words = plugin_words(place, [f"name=base", f"0 {SECTORS} linear origin 0",
                                 f"0 {SECTORS} snapshot base cow P 8"])
    with Server(place, words, "kept") as server:
        place.run(["nbdcopy", server.uri(), "seen"])
    place.run(["cmp", "seen", "expected"])


MIB = 1 << 20
STACKS = [
    Stack("linear", [f"0 65536 linear a 0\n65536 65536 linear b 8"],
          {"a": BYTES, "b": BYTES}),
    Stack("striped", [f"0 {SECTORS} striped 4 32 a 0 b 0 c 8 d 0"],
          {name: 20 * MIB for name in "abcd"}),
    Stack("sparse", ["name=zero", f"0 {SECTORS} zero", f"0 {SECTORS} snapshot zero cow P 16"],
          {"cow": 80 * MIB}),
    Stack("snapshot", ["name=base", f"0 {SECTORS} linear origin 0",
                       f"0 {SECTORS} snapshot base cow P 8"],
          {"origin": BYTES, "cow": 80 * MIB}, origin_kept),
    Stack("origin", ["name=base", f"0 {SECTORS} linear origin 0",
                     "name=kept", f"0 {SECTORS} snapshot base cow P 8",
                     f"0 {SECTORS} snapshot-origin base"],
          {"origin": BYTES, "cow": 80 * MIB}, snapshot_kept),
    Stack("mirror", [f"0 {SECTORS} mirror disk 3 log 1024 nosync 2 a 0 b 0 1 handle_errors"],
          {"a": BYTES, "b": BYTES, "log": MIB}, legs_same),
    Stack("deep", ["name=l0", "0 65536 linear a 8", "name=l1", "0 65536 linear b 0",
                   "name=s", f"0 {SECTORS} striped 2 64 l0 0 l1 0",
                   "name=m", f"0 {SECTORS} mirror core 2 1024 nosync 2 s 0 f 0",
                   f"0 {SECTORS} snapshot m cow P 8"],
          {"a": 40 * MIB, "b": 40 * MIB, "f": BYTES, "cow": 80 * MIB}, leg_untouched),
]

# Takes all writes and keeps none: what every judge of data must notice.
LIAR = Stack("liar", [f"0 {SECTORS} flakey a 0 0 3600 1 drop_writes"], {"a": BYTES})
