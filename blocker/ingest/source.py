"""Where a list comes from: one TOML file for each source, read into a frozen, checked model.

`lists/<name>.toml` describes one source; `load_sources` reads a whole directory. A broken file is reported and never
hides the others: whoever runs sources goes on with the good ones and leaves the list of a broken one as it is.

    name = "sample-urls"            # left out: the file's own name
    action = "block"                # or "allow": exceptions
    format = "url"                  # see blocker/ingest/formats
    url = "https://lists.example/urls.txt"
    interval_seconds = 3600
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from blocker.errors import SourceError
from blocker.ingest._origin import check_address
from blocker.ingest.credentials import Credentials
from blocker.ingest.formats import Format, FormatOptions, find_format
from blocker.ingest.formats._format import Bare, Column, Delimiter, DomainKind, TrailingSlash  # noqa: TC001 - pydantic
from blocker.ingest.formats._unpack import Compression  # noqa: TC001 - pydantic
from blocker.ingest.limits import GuardLimits, SourceGuards
from blocker.ingest.verify import Verification
from blocker.sections import CanaryUrl, Mode, Name

# One bit of the 64-bit mask in a node for each list; settings.PolicySettings has the same limit.
MAX_SOURCES = 64
# A source is some twenty short fields; a file beyond this is something else put there by mistake.
MAX_SOURCE_BYTES = 65_536

# The list that `blocker lists hold` keeps; see holds.py.
HOLDS = "holds"

_DAY = 86_400
_TABLES: dict[str, type[BaseModel]] = {"credentials": Credentials, "verify": Verification, "guards": SourceGuards}
_Text = Annotated[str, Field(max_length=2000)]


class Source(BaseModel):
    """One source of one list.

    Frozen and complete: relative paths are already taken from the directory of the TOML file. Neither `repr` nor an
    error shows the address, which may hold a token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    name: Name = Field(description="Name of the list: [a-z0-9_-], up to 63. Default: the file's name without .toml.")
    title: _Text = Field("", description="What the list is, for people. Free text.")
    authority: _Text = Field("", description="Who says what is on it. Free text.")
    description: _Text = Field("", description="Anything else worth knowing. Free text.")

    action: Literal["block", "allow"] = Field("block", description="block, or allow (exceptions). Default block.")
    mode: Mode = Field(
        Mode.ENFORCE, description="enforce, or shadow: decided and counted, never blocks. Default enforce."
    )
    path_case: Literal["sensitive", "insensitive"] = Field(
        "sensitive", description="insensitive folds ASCII case of path and query. Default sensitive."
    )
    www_alias: bool = Field(False, description="true: www.h and h are one host for this list. Default false.")

    format: str = Field(
        description="How the file is written: url, domain, hosts, csv, jsonl, rpz, adblock, squidguard-domains, "
        "squidguard-urls or bpjm."
    )
    bare: Bare | None = Field(
        None, description="url, csv and jsonl: kind of an URL without a path, host or domain. Default host."
    )
    trailing_slash: TrailingSlash | None = Field(
        None, description="url, csv and jsonl: kind of an URL that ends in a slash, prefix or exact. Default prefix."
    )
    domain_kind: DomainKind | None = Field(
        None, description="domain and hosts only: kind of a name, domain or host. Default domain there, host here."
    )
    columns: dict[Column, _Text] | None = Field(
        None, description="csv and jsonl only: what a field is called in the file. Default: its own name."
    )
    delimiter: Delimiter | None = Field(
        None, description='csv only: the sign between two columns, "," ";" "|" or a TAB. Default ",".'
    )
    compression: Compression = Field(
        "auto", description="Packing of the file: auto (by its first bytes), none, gzip, zstd, zip. Default auto."
    )

    path: Path | None = Field(None, description="The list's file, from the directory of the TOML file. This or url.")
    url: SecretStr | None = Field(
        None, description="The list's https address; http only to this machine. This or path.", max_length=8192
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that may vouch for url. Default: those of the system."
    )

    credentials: Credentials | None = Field(
        None, description="Table: how the server of url learns who asks; see credentials.py. url only."
    )
    verify: Verification | None = Field(
        None, description="Table: what must vouch for the file before a byte of it is parsed; see verify.py."
    )

    guards: SourceGuards = Field(
        default_factory=SourceGuards, description="Table: limits of this list, where they differ from the settings'."
    )
    canaries: tuple[CanaryUrl, ...] = Field(
        (), max_length=16, repr=False, description="Pages that this list must block, by which it is watched; up to 16."
    )

    interval_seconds: float = Field(
        3600, ge=1, le=30 * _DAY, description="Seconds between two looks, 1 to 30 days. Default 3600."
    )
    jitter_seconds: float = Field(
        300, ge=0, le=_DAY, description="Up to so many seconds more, at random, 0 to a day. Default 300."
    )
    timeout_seconds: float = Field(
        300, gt=0, le=_DAY, description="Seconds for a whole download, up to a day. Default 300."
    )
    max_bytes: int = Field(
        2**30, ge=1, le=2**40, description="Largest file in bytes, unpacked, up to 1 TiB. Default 1 GiB."
    )
    max_bad_share: float = Field(
        0.01, ge=0, le=1, description="Share of bad entries above which an update is refused, 0 to 1. Default 0.01."
    )

    @field_validator("name")
    @classmethod
    def _own_name(cls, value: str) -> str:
        if value == HOLDS:
            raise ValueError(f"{HOLDS} is the list of holds, which people make; choose another name")
        return value

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        try:
            return find_format(value).name
        except SourceError as error:
            raise ValueError(str(error)) from None

    @field_validator("path", "ca_file")
    @classmethod
    def _from_directory(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else (info.context or {}).get("directory", Path()) / value

    @field_validator("url")
    @classmethod
    def _safe_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_address(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("exactly one of path and url must be given")
        if self.ca_file is not None and self.url is None:
            raise ValueError("ca_file goes with url only")
        if self.credentials is not None and self.url is None:
            raise ValueError("credentials go with url only")
        if self.credentials is not None and "@" in urlsplit(self.url.get_secret_value() if self.url else "").netloc:
            raise ValueError("credentials and a user in url exclude each other; take the user out of url")
        unused = [option for option in self.format_options.given() if option not in self.list_format.options]
        if unused:
            allowed = ", ".join(sorted(self.list_format.options)) or "none"
            raise ValueError(f"{', '.join(unused)}: not an option of format {self.format}; it takes {allowed}")
        return self

    @property
    def list_format(self) -> Format:
        """The format's description and parser."""
        return find_format(self.format)

    @property
    def format_options(self) -> FormatOptions:
        """How the entries are read."""
        return FormatOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(FormatOptions)})

    @property
    def host(self) -> str | None:
        """Host of the address: the only part of it that a message may name. None for a file."""
        return None if self.url is None else urlsplit(self.url.get_secret_value()).hostname

    @property
    def stale_after_seconds(self) -> float:
        """Age of the last successful look from which the list counts as stale: two whole rounds missed."""
        return 2 * (self.interval_seconds + self.jitter_seconds)

    def guard_limits(self, defaults: GuardLimits) -> GuardLimits:
        """The limits of this list."""
        return self.guards.over(defaults)

    def fingerprint(self) -> str:
        """SHA-256 in hex of what makes the same file another list; when and how fast to look at it is not in it."""
        fields = {
            name: getattr(self, name)
            for name in ("action", "mode", "path_case", "www_alias", "format", "bare", "trailing_slash", "domain_kind")
        }
        # Added later: what does not use them keeps its fingerprint.
        fields |= {name: value for name in ("columns", "delimiter") if (value := getattr(self, name)) is not None}
        if self.compression != "auto":
            fields["compression"] = self.compression
        origin = str(self.path) if self.url is None else self.url.get_secret_value()
        # Another client may be given another list; what a table names is in it, what a secret holds is not.
        tables = [table.fingerprint() for table in (self.credentials, self.verify) if table is not None]
        return hashlib.sha256(json.dumps([fields, origin, *tables], sort_keys=True).encode()).hexdigest()


class LoadedSources(NamedTuple):
    """What a directory holds: the usable sources by name, and what is wrong with the rest."""

    sources: tuple[Source, ...]
    errors: tuple[SourceError, ...]


def load_sources(directory: Path) -> LoadedSources:
    """Read every `*.toml` in a directory.

    Of two files with one name neither is used; of more than 64 lists the first 64 by name are.

    Raises:
        SourceError: The directory itself cannot be read.
    """
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix == ".toml")
    except OSError as error:
        raise SourceError(f"list directory {directory} cannot be read: {_why(error)}") from None
    found: dict[str, list[tuple[Path, Source]]] = defaultdict(list)
    errors: list[SourceError] = []
    for file in files:
        try:
            source = load_source(file)
        except SourceError as error:
            errors.append(error)
        else:
            found[source.name].append((file, source))
    sources: list[Source] = []
    for name, same in sorted(found.items()):
        if len(same) > 1:
            names = ", ".join(file.name for file, _source in same)
            errors.append(SourceError(f"{names}: name: {name} is taken more than once; allowed: one file a list"))
        else:
            sources.append(same[0][1])
    if len(sources) > MAX_SOURCES:
        left_out = ", ".join(source.name for source in sources[MAX_SOURCES:])
        errors.append(SourceError(f"{directory}: {len(sources)} lists; allowed: {MAX_SOURCES}; left out: {left_out}"))
    return LoadedSources(tuple(sources[:MAX_SOURCES]), tuple(errors))


def load_source(file: Path) -> Source:
    """Read one source.

    Raises:
        SourceError: The file cannot be read, is no TOML, or a field is missing, unknown or out of range.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise SourceError(f"{file.name}: is no regular file")
        with file.open("rb") as stream:
            data = stream.read(MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{file.name}: cannot be read: {_why(error)}") from None
    if len(data) > MAX_SOURCE_BYTES:
        raise SourceError(f"{file.name}: larger than {MAX_SOURCE_BYTES} bytes; a list goes into its own file, see path")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise SourceError(f"{file.name}: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"{file.name}: no TOML: {error}") from None
    except RecursionError:
        raise SourceError(f"{file.name}: no TOML: nested too deeply") from None
    table.setdefault("name", file.stem)
    try:
        return Source.model_validate(table, context={"directory": file.parent})
    except ValidationError as error:
        faults = "; ".join(_fault(fault) for fault in error.errors(include_input=False, include_url=False))
        raise SourceError(f"{file.name}: {faults}") from None


def _fault(fault: Any) -> str:  # noqa: ANN401 - pydantic's own ErrorDetails
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        table = _TABLES.get(str(fault["loc"][0]), Source) if len(fault["loc"]) > 1 else Source
        return f"{field}: unknown field; allowed: {', '.join(table.model_fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
