"""A real https server for the tests, whose every answer a test writes byte by byte if it likes.

    async with HttpsServer(certificate) as server:
        server.answer = plain(b"http://a.example/\n")
        ... server.url("/list") ... server.requests

Answers are written raw, so that a test can lie about lengths, cut a body, or send nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    target: str
    headers: dict[str, str]
    exact: dict[str, str] = field(default_factory=dict)
    """The headers with their values as sent; in `headers` these are in lower case."""
    subject: str | None = None
    """Common name in the client's certificate."""


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Certificate:
    """Files of a throw-away authority and of a server it vouches for."""

    authority: Path
    chain: Path
    key: Path


def make_certificate(directory: Path, host: str = "127.0.0.1") -> Certificate:
    """An authority, and a certificate of it for 127.0.0.1 and localhost (or only for another host)."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    now = dt.datetime.now(dt.UTC)

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(issuer_name=authority_name, subject_name=name, public_key=public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )

    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = builder(authority_name, authority_key.public_key(), ca=True).add_extension(usage, critical=True)
    names: list[x509.GeneralName] = (
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(host))]
        if host == "127.0.0.1"
        else [x509.DNSName(host)]
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test server")])
    leaf = builder(subject, key.public_key(), ca=False).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    certificate = Certificate(directory / "authority.pem", directory / "chain.pem", directory / "key.pem")
    pem = serialization.Encoding.PEM
    certificate.authority.write_bytes(authority.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    certificate.chain.write_bytes(leaf.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    certificate.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate


class HttpsServer:
    """One server on a free port of 127.0.0.1; it serves one request a connection."""

    def __init__(self, certificate: Certificate | None, *, clients: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.answer: Answer = plain(b"")
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate.chain, certificate.key)
            if clients is not None:  # the authority that must vouch for every client
                self._context.verify_mode = ssl.CERT_REQUIRED
                self._context.load_verify_locations(clients)

    def url(self, target: str = "/list", user: str = "", host: str = "127.0.0.1") -> str:
        """The address of a target here."""
        return f"http{'s' if self._context else ''}://{user}{host}:{self.port}{target}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                pairs = (line.split(": ", 1) for line in lines[1:] if line)
                exact = {name.lower(): value for name, value in pairs}
                request = Request(lines[0].split()[1], headers, exact, _subject(writer))
                self.requests.append(request)
                await self.answer(request, writer)
                await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.is_closing() else writer.close()


def _subject(writer: asyncio.StreamWriter) -> str | None:
    certificate = writer.get_extra_info("peercert") or {}
    names = dict(pair for group in certificate.get("subject", ()) for pair in group)
    return names.get("commonName")


def raw(*parts: bytes) -> Answer:
    """Exactly these bytes, and the connection closed."""

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


def head(status: str = "200 OK", **headers: str | int) -> bytes:
    """A response head; `content_length=3` is written `content-length: 3`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "connection: close", "", ""]).encode()


def plain(body: bytes, **headers: str) -> Answer:
    """A whole and honest answer."""
    return raw(head(content_length=len(body), **headers), body)


def zipped(body: bytes, **headers: str) -> Answer:
    """The same, packed for the transfer."""
    packed = gzip.compress(body)
    return raw(head(content_length=len(packed), content_encoding="gzip", **headers), packed)


def conditional(body: bytes, etag: str) -> Answer:
    """304 for whoever holds this ETag, the body for everyone else."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers.get("if-none-match") == etag:
            await raw(head("304 Not Modified", etag=etag))(request, writer)
        else:
            await plain(body, etag=etag)(request, writer)

    return answer


async def silence(_request: Request, _writer: asyncio.StreamWriter) -> None:
    """No answer, for as long as the client waits."""
    await asyncio.Event().wait()
