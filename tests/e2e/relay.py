"""A relay between a resolver and a node that keeps what goes over it, as who reads the network between them could."""

from __future__ import annotations

import select
import socket
import threading
from typing import TYPE_CHECKING, Self

from tests.redis_server import free_port

if TYPE_CHECKING:
    from types import TracebackType

# How often it is looked at whether to end, in seconds.
_LOOK = 0.1


class Relay:
    """TCP and UDP to a port of this machine.

    Attributes:
        port: Where it listens.
        stream: All that went over TCP, both ways.
        datagrams: All that went over UDP, both ways.
    """

    def __init__(self, to: int, *, udp: bool = True) -> None:
        self.port, self._to = free_port(), to
        self.stream, self.datagrams = bytearray(), list[bytes]()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        if udp:
            self._threads.append(threading.Thread(target=self._pass_datagrams))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listening.close()
        self._udp.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listening], [], [], _LOOK)[0]:
                opened, _ = self._listening.accept()
                thread = threading.Thread(target=self._pass_stream, args=(opened,))
                thread.start()
                self._threads.append(thread)

    def _pass_stream(self, one: socket.socket) -> None:
        with one, socket.create_connection(("127.0.0.1", self._to)) as other:
            ends = {one: other, other: one}
            while not self._ended.is_set():
                for ready in select.select([*ends], [], [], _LOOK)[0]:
                    try:
                        data = ready.recv(1 << 16)
                        ends[ready].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    self.stream += data

    def _pass_datagrams(self) -> None:
        while not self._ended.is_set():
            if select.select([self._udp], [], [], _LOOK)[0]:
                asked, peer = self._udp.recvfrom(1 << 16)
                self.datagrams.append(asked)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.settimeout(2)
                    other.connect(("127.0.0.1", self._to))
                    other.send(asked)
                    try:
                        told = other.recv(1 << 16)
                    except OSError:
                        continue
                self.datagrams.append(told)
                self._udp.sendto(told, peer)
