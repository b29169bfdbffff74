"""Messages, and open files with them, between the processes of one node: JSON over a unix socket of sequenced packets.

Wire format (both ends are of one version of this program, so there is none in it):

1. one byte: `+` if more packets of the message follow, `.` if this is its last
2. up to 48 KiB of the message's JSON

File descriptors go with the first packet (SCM_RIGHTS, unix(7)). Nothing here waits: what the other side does not read
yet is kept, up to `MAX_WAITING_BYTES`; one that reads nothing for so long is given up.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import shutil
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog

from blocker.errors import ServeError
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

# A packet must fit into a socket's buffer, which is 208 KiB where nobody changed it.
_PIECE_BYTES = 48 * 1024
# Stop pages of all lists in all languages take a few MiB; far more is a fault.
MAX_MESSAGE_BYTES = 64 * 2**20
MAX_WAITING_BYTES = 2 * MAX_MESSAGE_BYTES
_MAX_DESCRIPTORS = 4
_MORE, _LAST = b"+", b"."

log = structlog.get_logger(__name__)

Message = dict[str, Any]


class Channel:
    """One connected end. Belongs to the running event loop.

    Args:
        opened: The socket; the channel closes it.
        on_message: Is given each message and the descriptors that came with it, which are then its own to close.
        on_end: Called once, when the other side has gone or broke the format; not after `close`.
    """

    def __init__(
        self,
        opened: socket.socket,
        on_message: Callable[[Message, Sequence[int]], object],
        on_end: Callable[[], object],
    ) -> None:
        self._socket = opened
        self._on_message = on_message
        self._on_end = on_end
        self._pieces: list[bytes] = []
        self._length = 0
        self._descriptors: list[int] = []
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._open = True
        opened.setblocking(False)
        self._loop.add_reader(opened.fileno(), self._readable)

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message; descriptors are duplicated, the caller's stay open. Nothing is sent on an ended channel."""
        if self._open:
            self.send_pieces([json.dumps(message, separators=(",", ":")).encode()], descriptors)

    def send_pieces(self, pieces: Sequence[bytes], descriptors: Sequence[int] = ()) -> None:
        """As `send`, for a message whose JSON is there by now, in some pieces."""
        if not self._open:
            return
        for packet, piece_descriptors in _packets(pieces, descriptors):
            self._waiting.append((packet, tuple(os.dup(one) for one in piece_descriptors)))
            self._waiting_bytes += len(packet)
        self._write()
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._end()

    def close(self) -> None:
        """Close it, without what still waits to be sent."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for one in [*self._descriptors, *(one for _, sent in self._waiting for one in sent)]:
            os.close(one)
        self._descriptors.clear()
        self._waiting.clear()

    def _write(self) -> None:
        while self._waiting:
            packet, descriptors = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            try:
                self._socket.sendmsg([packet], rights)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except OSError:
                self._end()
                return
            self._waiting.popleft()
            self._waiting_bytes -= len(packet)
            for one in descriptors:
                os.close(one)
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _PIECE_BYTES + 1,
                socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize),
                socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._descriptors.extend(received)
        self._length += len(data)
        if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or self._length > MAX_MESSAGE_BYTES:
            self._end()
            return
        self._pieces.append(data[1:])
        if data[:1] == _LAST:
            self._whole()

    def _whole(self) -> None:
        text, descriptors = b"".join(self._pieces), self._descriptors
        self._pieces, self._length, self._descriptors = [], 0, []
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            for one in descriptors:
                os.close(one)
            self._end()
            return
        try:
            self._on_message(message, descriptors)
        except Exception as error:  # noqa: BLE001 - a fault about one message must not end the reading of all
            log.error("a message of another process was not dealt with", **describe(error))  # noqa: TRY400 - no values

    def _end(self) -> None:
        if self._open:
            self.close()
            self._on_end()


def _packets(pieces: Sequence[bytes], descriptors: Sequence[int]) -> Iterator[tuple[bytes, Sequence[int]]]:
    for number, piece in enumerate(pieces):
        for at in range(0, len(piece), _PIECE_BYTES):
            more = number + 1 < len(pieces) or at + _PIECE_BYTES < len(piece)
            first = number == at == 0
            yield (_MORE if more else _LAST) + piece[at : at + _PIECE_BYTES], descriptors if first else ()


def listen(path: Path) -> socket.socket:
    """A socket that listens at a path, however long it is; what a killed process left there is replaced.

    Raises:
        OSError: Somebody listens there, it is no socket, or the directory cannot be written.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(path) as name:
            if path.is_socket() and not _answers(name):
                path.unlink()
            opened.bind(name)
        opened.listen()
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def listen_for(path: Path, group: str | None, section: str) -> socket.socket:
    """As `listen`, for this user alone, or for a group too.

    Args:
        path: Where.
        group: Who may also connect.
        section: Of the configuration, for the error.

    Raises:
        ServeError: The socket cannot be had, or its group is unknown; then it is not there.
    """
    opened = None
    try:
        opened = listen(path)
        if group is not None:
            shutil.chown(path, group=group)
        path.chmod(0o660 if group is not None else 0o600)
    except (LookupError, OSError) as error:
        if opened is not None:
            unlisten(opened, path)
        if isinstance(error, LookupError):
            raise ServeError(f"{section}.group: this machine has no group of that name") from None
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise ServeError(f"the {section}' socket {path} cannot be listened on: {reason}") from None
    return opened


def unlisten(opened: socket.socket, path: Path) -> None:
    """Close what `listen` opened, and remove it."""
    opened.close()
    with contextlib.suppress(OSError):
        path.unlink()


def connect(path: Path) -> socket.socket:
    """A socket connected to who listens at a path.

    Raises:
        OSError: Nobody does, or it is not allowed.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    opened.setblocking(False)  # with too many waiting already it fails instead of waiting too
    try:
        with _short(path) as name:
            opened.connect(name)
    except OSError:
        opened.close()
        raise
    return opened


def _answers(name: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(name)
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path through its directory's descriptor: sun_path of Linux holds 107 bytes (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
