"""Hosts on one machine, and cables between them with a delay, losses, a rate and a switch to cut them.

A host is a network namespace, a cable two TUN devices; a process reads packets from one and writes them to
the other when they are due. So the TCP between hosts is the system's own, with its windows and
retransmissions, and nothing is asked of the system that not every Linux has (many come without netem).

Invariants: a host has routes to the far ends of its cables and to nothing else. Of a cable's ends only the
first may open connections, and nothing but TCP passes. Namespaces and devices have no names, and are gone
with the processes that hold them: nothing is left to remove, however a test ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

CLONE_NEWNET = 0x40000000
# <linux/if_tun.h>, <linux/if.h>, <linux/sockios.h>
TUNSETIFF, IFF_TUN, IFF_NO_PI, IFF_UP, IFF_RUNNING = 0x400454CA, 0x0001, 0x1000, 0x1, 0x40
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFDSTADDR, SIOCSIFMTU, SIOCSIFTXQLEN = 0x8914, 0x8916, 0x8918, 0x8922, 0x8943
# A device drops what is beyond that, and a cable what waits for it longer than this.
DEVICE_PACKETS = 10_000
QUEUE_SECONDS = 0.5
LARGEST_MTU = 65_000
PACKETS_A_TURN = 64


@dataclass
class Settings:
    """Of a cable: ``delay`` in seconds, both ways together; ``loss`` of packets, 0 to 1; bytes a second."""

    delay: float = 0.0
    loss: float = 0.0
    rate: float = 0.0
    cut: bool = False


@dataclass
class Counts:
    """What went one way: packets that arrived, the bytes in them, and packets that did not, by reason."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    overflowed: int = 0
    cut: int = 0
    refused: int = 0


class Network:
    """Hosts and the cables between them, each (host that may open connections, host that may not).

    Raises:
        OSError: it can't be made here. It takes a Linux with TUN devices, and root.
    """

    def __init__(self, *cables, mtu=1500):
        self._cables = list(cables)
        names = dict.fromkeys(name for cable in cables for name in cable)
        self._hosts = {name: number for number, name in enumerate(names, 1)}
        self._settings = {cable: Settings() for cable in cables}
        plan = {
            "hosts": list(names),
            "cables": [[*cable, self.address(cable[0]), self.address(cable[1])] for cable in cables],
            "mtu": mtu,
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._namespaces = {}
        told = self._process.stdout.readline()
        if not told:
            why = self._process.communicate()[1].decode().strip().rpartition("\n")[2]
            raise OSError(f"no hosts can be made here, which takes root and TUN devices: {why}")
        for name, descriptor in json.loads(told).items():
            path = f"/proc/{self._process.pid}/fd/{descriptor}"
            self._namespaces[name] = os.open(path, os.O_RDONLY)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Pull all cables."""
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()
        while self._namespaces:
            os.close(self._namespaces.popitem()[1])

    def address(self, host):
        """The address of a host."""
        return f"10.77.0.{self._hosts[host]}"

    def set(self, near, far, **changes):
        """Change a cable; see `Settings`."""
        settings = self._settings[near, far]
        for name, value in changes.items():
            setattr(settings, name, value)
        self._tell(near, far, vars(settings))

    def forget(self, near, far):
        """Let what is connected be unknown to a cable, which swallows it: a firewall that was restarted."""
        self._tell(near, far, None)

    def counts(self, near, far):
        """What went over a cable so far: from the near end, and from the far end."""
        return [Counts(**each) for each in self._tell(near, far, {})]

    def _tell(self, near, far, changes):
        with self._lock:
            line = json.dumps([self._cables.index((near, far)), changes]) + "\n"
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def set_mtu(self, mtu):
        """Let packets, of connections to come, be as large as this."""
        for host in self._hosts:
            ends = [n for n, cable in enumerate(self._cables) if host in cable]
            self.on(host, lambda ends=ends: [_configure(f"rlm{n}", SIOCSIFMTU, "i12x", mtu) for n in ends])

    def on(self, host, function, *arguments):
        """Call a function on a host, in a thread; what it opens and starts is there."""
        with ThreadPoolExecutor(1, initializer=_enter, initargs=(self._namespaces[host],)) as pool:
            return pool.submit(function, *arguments).result()

    def run(self, host, main):
        """Run ``main()``, a coroutine, on a host, on a loop of its own."""
        return self.on(host, lambda: asyncio.run(main()))


def _enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a namespace can't be entered")


def _configure(device, request, format_, *values):
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, struct.pack("16s" + format_, device.encode(), *values))


# The process between the devices ---------------------------------------------------------------------


def _device(name, here, there, mtu):
    """Make a TUN device in the namespace of this thread; return its descriptor."""
    import fcntl

    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for request, address in ((SIOCSIFADDR, here), (SIOCSIFDSTADDR, there)):
        _configure(name, request, "H2x4s8x", socket.AF_INET, socket.inet_aton(address))
    _configure(name, SIOCSIFMTU, "i12x", mtu)
    _configure(name, SIOCSIFTXQLEN, "i12x", DEVICE_PACKETS)
    _configure(name, SIOCSIFFLAGS, "H14x", IFF_UP | IFF_RUNNING)
    return device


def _host(devices):
    """Make a host with these devices, each (name, address, address over there, mtu)."""

    def make():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no network namespace")
        _configure("lo", SIOCSIFFLAGS, "H14x", IFF_UP | IFF_RUNNING)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY), [_device(*each) for each in devices]

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


class _Way:
    """One way of a cable: from ``source`` to ``sink``, both devices; ``opens`` is whether it may open."""

    def __init__(self, source, sink, ends, settings, *, opens, seed):
        self.source, self.sink = source, sink
        self._ends = b"".join(map(socket.inet_aton, ends))
        self._settings = settings
        self._opens = opens
        self._random = random.Random(seed)
        self._free = 0.0
        self._flows = set()
        self.waiting = deque()
        self.counts = Counts()

    def _allows(self, packet, known):
        """Whether this is a packet of a connection that the near end opened."""
        if len(packet) < 40 or packet[0] >> 4 != 4 or packet[12:20] != self._ends or packet[9] != 6:
            return False
        at = 4 * (packet[0] & 15)
        ports = packet[at : at + 4]
        if self._opens:
            if packet[at + 13] & 0x12 == 0x02:
                known.add(ports)
        else:
            ports = ports[2:] + ports[:2]
        return ports in known

    def take(self, now, known):
        """Read what was sent."""
        settings, counts = self._settings, self.counts
        for _ in range(PACKETS_A_TURN):
            try:
                packet = os.read(self.source, LARGEST_MTU + 100)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 6:
                continue  # a device says hello to routers
            if not self._allows(packet, known):
                counts.refused += 1
            elif settings.cut:
                counts.cut += 1
            elif settings.loss and self._random.random() < settings.loss:
                counts.lost += 1
            else:
                leaves = now
                if settings.rate:
                    if self._free - now > QUEUE_SECONDS:
                        counts.overflowed += 1
                        continue
                    leaves = self._free = max(now, self._free) + len(packet) / settings.rate
                self.waiting.append((leaves + settings.delay / 2, packet))

    def deliver(self, now):
        """Write what is due."""
        while self.waiting and self.waiting[0][0] <= now:
            packet = self.waiting.popleft()[1]
            if self._settings.cut:
                self.counts.cut += 1
                continue
            with suppress(OSError):
                os.write(self.sink, packet)
                self.counts.packets += 1
                self.counts.bytes += len(packet)


def _forward(plan):
    hosts = {
        name: _host(
            [
                (f"rlm{n}", *(cable[2:] if name == cable[0] else cable[:1:-1]), plan["mtu"])
                for n, cable in enumerate(plan["cables"])
                if name in cable[:2]
            ]
        )
        for name in plan["hosts"]
    }
    cables = []
    left = {name: list(devices) for name, (_, devices) in hosts.items()}
    for n, (near, far, here, there) in enumerate(plan["cables"]):
        ends = left[near].pop(0), left[far].pop(0)
        settings = Settings()
        ways = (
            _Way(*ends, (here, there), settings, opens=True, seed=2 * n),
            _Way(*ends[::-1], (there, here), settings, opens=False, seed=2 * n + 1),
        )
        cables.append((settings, ways, set()))
    # An end of the test is the end of its input; its signals are not for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(json.dumps({name: namespace for name, (namespace, _) in hosts.items()}), flush=True)
    by_source = {way.source: (way, known) for _, ways, known in cables for way in ways}
    ways = [way for way, _ in by_source.values()]
    while True:
        due = min((way.waiting[0][0] for way in ways if way.waiting), default=None)
        # Not epoll, which waits whole milliseconds.
        wait = None if due is None else max(0.0, due - time.monotonic())
        ready, _, _ = select.select([0, *by_source], [], [], wait)
        now = time.monotonic()
        for source in ready:
            if source:
                way, known = by_source[source]
                way.take(now, known)
                continue
            line = sys.stdin.buffer.readline()
            if not line:
                return
            number, changes = json.loads(line)
            settings, both, known = cables[number]
            if changes is None:
                known.clear()
            else:
                vars(settings).update(changes)
            print(json.dumps([vars(way.counts) for way in both]), flush=True)
        now = time.monotonic()
        for way in ways:
            way.deliver(now)


if __name__ == "__main__":
    _forward(json.loads(sys.argv[1]))
