"""How a source proves to its server who asks: a password, a token, a header of its own, a client certificate.

    [credentials]
    user = "client-17"
    password_file = "client-17.password"     # mode 0600; or password_env = "NAME"

A source says where a secret is and never the secret itself: source files are copied, shown and kept under version
control. Secrets are read anew at each look, so a changed one is used at the next. They go to the source's own scheme,
host and port only, and are in no message: an error names the field, the file or the variable.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from blocker.ingest._origin import fault

if TYPE_CHECKING:
    import ssl

    from blocker.errors import FetchError
    from blocker.ingest.source import Source

# Servers refuse header lines beyond 8 KiB; a file beyond it is something else.
MAX_SECRET_BYTES = 8192
# An encrypted key would otherwise ask at the terminal and wait for ever.
_NO_PASSWORD = ""

_SECRETS = ("password", "token", "header_value")
# Set by the download itself, or by the fields above; RFC 9110 sections 7.2, 7.6.1 and 13.1.
_OWN_HEADERS = frozenset({
    "accept", "accept-encoding", "authorization", "connection", "content-length", "expect", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "keep-alive", "proxy-authorization",
    "range", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
})  # fmt: skip
# RFC 9110 section 5.6.2, RFC 6750 section 2.1, RFC 9110 section 5.5 (visible characters, spaces only inside).
_HEADER_NAME = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}$"
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_PASSWORD = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")

_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]


class Credentials(BaseModel):
    """The `[credentials]` table of a source: names of secrets, no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    user: str | None = Field(
        None, pattern=r"^[^:\x00-\x1f\x7f]{1,256}$", description="User of basic authentication (RFC 7617), no colon."
    )
    password_file: Path | None = Field(None, description="File with the user's password, mode 0600.")
    password_env: _Variable | None = Field(None, description="Environment variable with the user's password.")
    token_file: Path | None = Field(None, description="File with a bearer token (RFC 6750), mode 0600.")
    token_env: _Variable | None = Field(None, description="Environment variable with a bearer token.")
    header_name: str | None = Field(None, pattern=_HEADER_NAME, description="Name of one more header to send.")
    header_value_file: Path | None = Field(None, description="File with that header's value, mode 0600.")
    header_value_env: _Variable | None = Field(None, description="Environment variable with that header's value.")
    client_certificate_file: Path | None = Field(None, description="PEM file of the client's certificate and chain.")
    client_key_file: Path | None = Field(None, description="PEM file of its key, not encrypted, mode 0600.")

    @model_validator(mode="before")
    @classmethod
    def _no_secret_in_the_file(cls, table: Any) -> Any:  # noqa: ANN401 - whatever the TOML holds
        inline = [name for name in (*_SECRETS, "client_key") if isinstance(table, dict) and name in table]
        if inline:
            name = inline[0]
            places = f"{name}_file" if name == "client_key" else f"{name}_file or {name}_env"
            raise ValueError(f"{name}: no secret may stand in a source file, which is copied and shown; use {places}")
        return table

    @field_validator("password_file", "token_file", "header_value_file", "client_certificate_file", "client_key_file")
    @classmethod
    def _from_directory(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else (info.context or {}).get("directory", Path()) / value

    @field_validator("header_name")
    @classmethod
    def _not_our_own(cls, value: str | None) -> str | None:
        if value is not None and value.lower() in _OWN_HEADERS:
            raise ValueError("this header is set by the download itself; allowed: any other, such as X-Api-Key")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {name for name in _SECRETS if self._places(name) != (None, None)}
        for name in _SECRETS:
            if None not in self._places(name):
                raise ValueError(f"only one of {name}_file and {name}_env may be given")
        if (self.user is None) != ("password" not in given):
            raise ValueError("user needs password_file or password_env, and these need user")
        if (self.header_name is None) != ("header_value" not in given):
            raise ValueError("header_name needs header_value_file or header_value_env, and these need header_name")
        if {"password", "token"} <= given:
            raise ValueError("user and token cannot both be sent; give one of them")
        if (self.client_certificate_file is None) != (self.client_key_file is None):
            raise ValueError("client_certificate_file and client_key_file go together")
        if not given and self.client_key_file is None:
            raise ValueError("the table is empty; give user, a token, header_name or a client certificate")
        return self

    def fingerprint(self) -> dict[str, str]:
        """What is said here, for `Source.fingerprint`; names of secrets only."""
        return self.model_dump(mode="json", exclude_none=True)

    def _places(self, name: str) -> tuple[Path | None, str | None]:
        return getattr(self, f"{name}_file"), getattr(self, f"{name}_env")


def request_headers(source: Source) -> dict[str, str]:
    """The headers that carry the source's secrets; reads files.

    Raises:
        FetchError: A secret is missing, readable by others, or not of the form its header needs.
    """
    credentials = source.credentials
    headers: dict[str, str] = {}
    if credentials is None:
        return headers
    if credentials.user is not None:
        password = _secret(source, credentials, "password", _PASSWORD, "text on one line")
        pair = base64.b64encode(f"{credentials.user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    if credentials.token_file is not None or credentials.token_env is not None:
        headers["Authorization"] = f"Bearer {_secret(source, credentials, 'token', _TOKEN, 'a token (RFC 6750)')}"
    if credentials.header_name is not None:
        value = _secret(source, credentials, "header_value", _HEADER_VALUE, "visible ASCII characters on one line")
        headers[credentials.header_name] = value
    return headers


def add_client_certificate(source: Source, context: ssl.SSLContext) -> None:
    """Let a TLS context show the source's client certificate; reads files.

    Raises:
        FetchError: A file is missing, the key is readable by others, encrypted, or not that of the certificate.
    """
    credentials = source.credentials
    if credentials is None or credentials.client_certificate_file is None or credentials.client_key_file is None:
        return
    key = credentials.client_key_file
    os.close(_open_private(source, "client_key_file", key))
    try:
        context.load_cert_chain(credentials.client_certificate_file, key, password=lambda: _NO_PASSWORD)
    except (OSError, ValueError):  # an SSLError is an OSError
        raise fault(
            source, "credentials.client_certificate_file and client_key_file cannot be used; "
            "expected a PEM certificate and its own PEM key, not encrypted",
        ) from None  # fmt: skip


def _secret(source: Source, credentials: Credentials, name: str, form: re.Pattern[str], expected: str) -> str:
    file, variable = credentials._places(name)  # noqa: SLF001 - this module's own
    if file is not None:
        field = f"{name}_file"
        text = _read(source, field, file)
    else:
        field = f"{name}_env"
        assert variable is not None  # noqa: S101 - Credentials has checked it
        value = os.environ.get(variable)
        if value is None:
            raise _fault(source, field, f"environment variable {variable} is not set; set it for the service")
        text = value
    if not form.fullmatch(text):
        raise _fault(source, field, f"expected {expected}, not empty")
    return text


def _read(source: Source, field: str, path: Path) -> str:
    with os.fdopen(_open_private(source, field, path), "rb") as file:
        try:
            data = file.read(MAX_SECRET_BYTES + 1)
        except OSError as error:
            raise _unreadable(source, field, path, error) from None
    if len(data) > MAX_SECRET_BYTES:
        raise _fault(source, field, f"{path} has more than {MAX_SECRET_BYTES} bytes; expected the secret alone")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _fault(source, field, f"{path} is no UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _open_private(source: Source, field: str, path: Path) -> int:
    """A descriptor of a regular file that only its owner can use."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(source, field, path, error) from None
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode) and not mode & 0o077:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _fault(source, field, f"{path} is no regular file")
    raise _fault(source, field, f"{path}: mode {mode:04o} lets others at the secret; run chmod 600 {path}")


def _unreadable(source: Source, field: str, path: Path, error: OSError) -> FetchError:
    return _fault(source, field, f"{path} cannot be read: {error.strerror or type(error).__name__}")


def _fault(source: Source, field: str, what: str) -> FetchError:
    return fault(source, f"credentials.{field}: {what}")
