"""A source that is an https address.

Redirects stay on the origin of the source (scheme, host and port), and so do its credentials. A body must carry its
length or be chunked, and a compressed one must end where gzip says. Only gzip is asked for: every server has it, and
its reader can be bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import zlib
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx

from blocker.errors import FetchError
from blocker.ingest._gzip import Gunzip
from blocker.ingest._origin import CHUNK_BYTES, Deadline, Origin, fault, is_loopback
from blocker.ingest.credentials import add_client_certificate, request_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from blocker.ingest.source import Source

# A host that accepts no connection in this time is down; one that is silent for longer has hung.
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0
# As many as a moved path needs; more is a loop.
MAX_REDIRECTS = 5

_OK, _NOT_MODIFIED = 200, 304
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# RFC 9110 sections 8.8.3 and 5.6.7. What does not look like it is not remembered, so it is not sent back either.
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
_HTTP_DATE = re.compile(r"[A-Za-z]{3}, [0-9A-Za-z :]{10,30} GMT")

_quiet: ContextVar[bool] = ContextVar("blocker_fetch_quiet", default=False)


def _not_during_a_fetch(_record: logging.LogRecord) -> bool:
    return not _quiet.get()


# These log whole addresses, httpx even at level INFO; other users of them in this process are left alone. A filter of
# a parent does not see its children's records, so each logger that httpcore has is named.
for _name in ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks"))):
    logging.getLogger(_name).addFilter(_not_during_a_fetch)


@contextlib.asynccontextmanager
async def open_url(source: Source, state: Mapping[str, str]) -> AsyncIterator[Origin | None]:
    """Ask for `source.url`; yields None if the server says that nothing changed since `state`.

    Raises:
        FetchError: The host cannot be reached or trusted, or does not answer with the whole list.
    """
    deadline = Deadline(source)
    local = is_loopback(source.host or "")
    context = await deadline.wait(asyncio.to_thread(_tls, source))
    secrets = await deadline.wait(asyncio.to_thread(request_headers, source))
    token = _quiet.set(True)
    try:
        async with httpx.AsyncClient(
            verify=context,
            trust_env=not local,  # a proxy cannot reach this machine
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            headers={
                "User-Agent": f"blocker/{version('blocker')}",
                "Accept": "*/*",
                "Accept-Encoding": "gzip",
                **secrets,  # this client asks nobody but the source's origin
            },
        ) as client:
            response = await _answer(client, source, _conditions(state), deadline)
            try:
                yield None if response.status_code == _NOT_MODIFIED else _origin(source, response, deadline)
            finally:
                await response.aclose()
    finally:
        _quiet.reset(token)


def _tls(source: Source) -> ssl.SSLContext:
    if source.ca_file is None:
        context = httpx.create_ssl_context()
    else:
        try:
            context = ssl.create_default_context(cafile=source.ca_file)
        except (OSError, ssl.SSLError):
            raise FetchError(f"{source.name}: ca_file cannot be read or holds no PEM certificate") from None
    add_client_certificate(source, context)
    return context


def _conditions(state: Mapping[str, str]) -> dict[str, str]:
    names = {"etag": "If-None-Match", "last_modified": "If-Modified-Since"}
    return {header: state[key] for key, header in names.items() if key in state}


async def _answer(
    client: httpx.AsyncClient, source: Source, conditions: Mapping[str, str], deadline: Deadline
) -> httpx.Response:
    """The 200 or 304 at the end of the redirects, its body unread."""
    assert source.url is not None  # noqa: S101 - fetch.py chose this module by it
    url = origin = httpx.URL(source.url.get_secret_value())
    for _ in range(MAX_REDIRECTS + 1):
        with _named_faults(source):
            request = client.build_request("GET", url, headers=conditions)
            response = await deadline.wait(client.send(request, stream=True))
        if response.status_code == _OK or (response.status_code == _NOT_MODIFIED and conditions):
            return response
        await response.aclose()
        if response.status_code not in _REDIRECTS or "location" not in response.headers:
            raise fault(source, f"answered status {response.status_code}, expected 200")
        with _named_faults(source):
            url = url.join(response.headers["location"]).copy_with(userinfo=origin.userinfo)
        if (url.scheme, url.host, url.port) != (origin.scheme, origin.host, origin.port):
            raise fault(source, "redirects to another host, port or scheme; put the new address into the source")
    raise fault(source, f"redirects more than {MAX_REDIRECTS} times")


def _origin(source: Source, response: httpx.Response, deadline: Deadline) -> Origin:
    headers = response.headers
    packing = headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip"):
        raise fault(source, "answers in a content encoding that was not asked for, expected gzip or none")
    if headers.get("transfer-encoding", "").strip().lower() != "chunked" and "content-length" not in headers:
        raise fault(source, "answers without a length, so a cut would not be seen; expected Content-Length or chunked")
    length = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else None
    if length is not None and length > source.max_bytes:
        raise fault(source, f"announces {length} bytes, more than max_bytes = {source.max_bytes}")
    state = {}
    for key, header, pattern in (("etag", "etag", _ETAG), ("last_modified", "last-modified", _HTTP_DATE)):
        if pattern.fullmatch(headers.get(header, "")):
            state[key] = headers[header]
    raw = _raw_chunks(source, response, deadline)
    if packing == "identity":
        return Origin(length, state, raw)
    return Origin(None, state, _unpacked(source, raw))


async def _raw_chunks(source: Source, response: httpx.Response, deadline: Deadline) -> AsyncIterator[bytes]:
    chunks = response.aiter_raw(CHUNK_BYTES)
    while True:
        with _named_faults(source):
            chunk = await deadline.wait(anext(chunks, b""))
        if not chunk:
            return
        yield chunk


async def _unpacked(source: Source, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    gunzip = Gunzip()
    try:
        async for chunk in chunks:
            pieces = gunzip.feed(chunk, CHUNK_BYTES)
            while piece := await asyncio.to_thread(next, pieces, b""):
                yield piece
    except zlib.error:
        raise fault(source, "body is not the gzip that its header announces") from None
    if not gunzip.complete:
        raise fault(source, "compressed body was cut")


@contextlib.contextmanager
def _named_faults(source: Source) -> Iterator[None]:
    """Turn what httpx raises, whose text may hold the address, into errors that do not."""
    try:
        yield
    except httpx.ConnectTimeout:
        raise fault(source, f"no connection within {CONNECT_SECONDS:g} s") from None
    except httpx.TimeoutException:
        raise fault(source, f"silent for more than {SILENCE_SECONDS:g} s") from None
    except httpx.ConnectError as error:
        raise fault(source, f"cannot connect: {_network_reason(error)}") from None
    except httpx.NetworkError as error:  # a server that wants a client certificate says so here
        raise fault(source, f"connection failed: {_network_reason(error)}") from None
    except httpx.RemoteProtocolError:
        raise fault(source, "answer was cut or is no HTTP") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise fault(source, f"download failed: {type(error).__name__}") from None


def _network_reason(error: BaseException) -> str:
    """The system's or TLS's own words, found under the library's wrappings."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate refused: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "no further reason"
