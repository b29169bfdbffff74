"""What several sections of the configuration are made of."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Port = Annotated[int, Field(ge=0, le=65535)]
#: An address as it may stand in a header and in a link. ASCII: a name in its xn-- form.
Link = Annotated[str, Field(max_length=500, pattern=r"^https?://[!#-;=?-~]+$")]


class Frozen(BaseModel):
    """A section: no field that is not known, none that changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StreamSettings(Frozen):
    """Where a gateway of a stream protocol listens, and what it bears with from a peer."""

    enabled: bool = Field(True, description="Whether this gateway listens. Default true.")
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address to listen on, or several: 192.0.2.53, 2001:db8::53. Default 127.0.0.1.",
    )
    port: Port = Field(0, description="TCP port; 0 takes a free one.")
    unix: Path | None = Field(None, description="Unix socket to listen on as well. Default none.")
    unix_mode: int = Field(0o660, ge=0, le=0o777, description="Mode of the unix socket. Default 0o660.")
    policy: Name = Field("default", description="Policy that it decides by. Default `default`.")
    max_connections: int = Field(
        1024, ge=1, le=100_000, description="Connections at once; one more is closed at once. Default 1024."
    )
    request_seconds: float = Field(
        10.0, gt=0, le=3600, description="Time for a request to arrive whole, and for an answer to be read. Default 10."
    )
    idle_seconds: float = Field(
        75.0, gt=0, le=86_400, description="Time after which a silent connection is closed. Default 75: over nginx' 60."
    )
    drain_seconds: float = Field(
        2.0, ge=0, le=300, description="Time that lasting connections get at a stop to ask once more. Default 2."
    )
