"""The one settings model: `blocker.toml`, overridden by `BLOCKER_…` environment variables, frozen once read.

Everything is validated here, before any socket opens. In the environment nested fields are written
`BLOCKER_HTTP__PORT`, and fields that are lists or tables hold JSON.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableSource

from blocker.errors import SettingsError
from blocker.feed_section import FeedSettings
from blocker.route_section import RouteSettings
from blocker.sections import (
    CanarySettings,
    CompanionSettings,
    GatewaySettings,
    GuardSettings,
    HitSettings,
    HttpSettings,
    Mode,
    Name,
    PolicySettings,
    Role,
)
from blocker.stop_section import StopPageSettings

_PREFIX = "BLOCKER_"
DEFAULT_POLICY = "default"

_REDIS_SCHEMES = (
    "redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://", "redis+cluster://",
    "rediss+cluster://",
)  # fmt: skip


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )
    _toml: ClassVar[Path | None] = None

    data_dir: Path = Field(
        Path("var"), description="Directory for keys, snapshot and embedded Redis, made with mode 0700. Default ./var."
    )
    lists_dir: Path = Field(Path("lists"), description="Directory of the list sources (*.toml). Default ./lists.")
    redis_url: str | None = Field(
        None,
        description="redis://, rediss://, unix://, redis+sentinel://host:port,…/service[/db] or redis+cluster://. "
        "Default none: an embedded Redis in data_dir.",
    )
    deployment: Name = Field("default", description="Name in every Redis key's hash tag: [a-z0-9_-], up to 63.")
    node: Name = Field(
        default_factory=lambda: re.sub(r"[^a-z0-9_-]", "-", socket.gethostname().lower())[:63].strip("-_") or "node",
        description="This node's stable name, under which its hits are kept. Default: the host's name.",
    )
    roles: tuple[Role, ...] = Field(tuple(Role), min_length=1, description="Parts to run. Default all.")
    timezone: str = Field(
        "UTC", validate_default=True, description="IANA zone whose hours and weekdays hits are counted in. Default UTC."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["console", "json"] = Field("console", description="One line a record, for people or machines.")
    poll_seconds: float = Field(
        5.0, gt=0, le=300, description="The follower looks at the heads at least this often, in seconds. Default 5."
    )
    keep_serials: int = Field(
        100, ge=2, le=10_000, description="Manifests kept per list for `lists log` and rollback. Default 100."
    )
    http: HttpSettings = Field(default_factory=HttpSettings)
    gateways: GatewaySettings = Field(default_factory=GatewaySettings)
    feeds: FeedSettings = Field(default_factory=FeedSettings)
    companions: CompanionSettings = Field(default_factory=CompanionSettings)
    hits: HitSettings = Field(default_factory=HitSettings)
    routes: RouteSettings = Field(default_factory=RouteSettings)
    policies: dict[Name, PolicySettings] = Field(
        default_factory=dict, description="Policies by name. `default` exists always: every list in its own mode."
    )
    stop_page: StopPageSettings = Field(default_factory=StopPageSettings)
    guards: GuardSettings = Field(default_factory=GuardSettings)
    canaries: dict[Name, CanarySettings] = Field(
        default_factory=dict,
        description="Canaries by list, as in [canaries.police] blocked = […]. A list that is named here and not there "
        "counts as failed. Requests for a canary are never counted as hits, whoever sends them.",
    )
    canary_seconds: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="Seconds between two looks at the canaries, 1 to 3600. Default 60; the alert rules expect that.",
    )

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(_REDIS_SCHEMES):
            raise ValueError(f"must start with one of {', '.join(_REDIS_SCHEMES)}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            reason = "is no IANA time zone, such as Europe/Stockholm"
            if not available_timezones():
                reason = "cannot be looked up: this machine has no time zone data; install tzdata"
            raise ValueError(reason) from None
        return value

    @field_validator("policies")
    @classmethod
    def _few_lists(cls, value: dict[str, PolicySettings]) -> dict[str, PolicySettings]:
        for name, policy in value.items():
            if len(policy.lists) > 64:  # one bit of a 64-bit mask for each list
                raise ValueError(f"policy {name} has {len(policy.lists)} lists; at most 64")
        return value

    @model_validator(mode="after")
    def _known_policies(self) -> Settings:
        asking = {f"gateways.{name}": getattr(gateway, "policy", DEFAULT_POLICY) for name, gateway in self.gateways}
        asking["routes"] = self.routes.policy
        asking |= {f"feeds.rpz.zones.{name}": zone.policy for name, zone in self.feeds.rpz.zones.items()}
        for name, policy in asking.items():
            if policy not in (DEFAULT_POLICY, *self.policies):
                raise ValueError(f"{name}.policy: there is no policy of that name in [policies]")
        return self

    @model_validator(mode="after")
    def _popular_where_routed(self) -> Settings:
        if self.routes.enabled and self.routes.popular_top and self.guards.popular_domains is None:
            raise ValueError("routes: need guards.popular_domains, or routes.popular_top = 0 to do without")
        if self.routes.enabled and not self.guards.own_networks:
            raise ValueError("routes: need guards.own_networks: a listed site could have your own servers routed")
        return self

    @model_validator(mode="after")
    def _zones_where_dns_is(self) -> Settings:
        rpz = self.feeds.rpz
        if rpz.enabled and rpz.on_dns_gateway and not (self.gateways.dns.enabled and self.gateways.workers == 0):
            raise ValueError(
                "feeds.rpz.on_dns_gateway: needs gateways.dns.enabled = true and gateways.workers = 0, since workers "
                "hold no list in clear text; without it the zones have their own port"
            )
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone itself."""
        return ZoneInfo(self.timezone)

    @property
    def shadow_lists(self) -> frozenset[str]:
        """Lists that some policy has in shadow mode."""
        return frozenset(
            name for policy in self.policies.values() for name, mode in policy.lists.items() if mode is Mode.SHADOW
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' own signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=cls._toml))


def _field(variable: str) -> str:
    return variable.removeprefix(_PREFIX).split("__")[0].lower()


def load(path: Path | None = None, **overrides: Any) -> Settings:  # noqa: ANN401 - any field's own type
    """Read the configuration.

    Args:
        path: The TOML file; None takes `blocker.toml` in the working directory if there is one.
        overrides: Fields set on the command line; they win.

    Raises:
        SettingsError: The file is missing or no TOML, or a field is unknown or out of range; each is named.
    """
    chosen = path or Path("blocker.toml")
    try:
        toml = chosen if chosen.is_file() else None
    except OSError as error:
        raise SettingsError(f"configuration file {chosen} cannot be looked for: {error.strerror}") from None
    if toml is None and path is not None:
        raise SettingsError(f"configuration file {path} does not exist or is no file")
    unknown = sorted(
        name for name in os.environ if name.startswith(_PREFIX) and _field(name) not in Settings.model_fields
    )
    if unknown:
        raise SettingsError(f"environment: {', '.join(unknown)}: there is no such setting; see blocker/settings.py")
    source: type[Settings] = type("Settings", (Settings,), {"_toml": toml, "__module__": __name__})
    try:
        return source(**{key: value for key, value in overrides.items() if value is not None})
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{toml}: no TOML: {error}") from None
    except UnreadableSource as error:
        # Names the field and its source, not the value.
        raise SettingsError(f"{error}; in the environment, lists and tables are written as JSON") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{toml}: cannot be read: {type(error).__name__}") from None
    except ValidationError as error:
        # The values themselves stay out of the text: a Redis URL holds a password.
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False)
        )
        raise SettingsError(f"configuration ({toml or 'environment'}): {faults}") from None
