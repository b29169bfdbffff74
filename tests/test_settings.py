from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from pydantic import BaseModel

from blocker import settings as settings_module
from blocker.errors import SettingsError
from blocker.rules import Verdict
from blocker.sections import Mode, Role
from blocker.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = Path(__file__).parent / "settings"
MARK = "zzmarkzz"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine."""
    for name in os.environ:
        if name.startswith("BLOCKER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", sorted(FILES.glob("busted_*.toml")), ids=lambda path: path.stem)
def test_a_busted_file_is_refused_by_the_name_of_the_setting(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").partition("# expect: ")[2].partition("\n")[0]
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert MARK not in str(caught.value), "a value may be a password"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_file_with_every_setting_works() -> None:
    settings = load(FILES / "working_full.toml")
    assert settings.roles == (Role.CONTROL,)
    assert settings.zone == ZoneInfo("Europe/Stockholm")
    assert (settings.http.host, settings.http.port, settings.hits.bin) == ("::1", 0, 16)
    assert settings.policies["family"].lists == {"police": Mode.ENFORCE, "trial": Mode.SHADOW}
    assert settings.policies["family"].on_invalid is Verdict.BLOCK
    assert settings.shadow_lists == {"trial"}
    assert len(settings.canaries["police"].blocked) == 2
    assert "canary." not in repr(settings), "a canary is an entry of a list"
    default, text = Settings(), (FILES / "working_full.toml").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert name in text, "the file with every setting lacks one"
        assert getattr(settings, name) != getattr(default, name), name
        assert field.description or isinstance(getattr(settings, name), BaseModel), name


def test_nothing_has_to_be_set() -> None:
    settings = load(FILES / "working_minimal.toml")
    assert settings.model_dump() == load().model_dump() == Settings().model_dump()
    assert settings.roles == tuple(Role)
    assert settings.zone == ZoneInfo("UTC")
    assert settings.http.host == "127.0.0.1"
    assert settings.shadow_lists == frozenset()
    assert settings.redis_url is None


def test_the_file_of_the_working_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "blocker.toml").write_text('deployment = "here"\n', encoding="utf-8")
    assert load().deployment == "here"


def test_arguments_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blocker.toml").write_text('deployment = "file"\n[http]\nport = 1\nmax_batch = 5\n', encoding="utf-8")
    monkeypatch.setenv("BLOCKER_HTTP__PORT", "2")
    monkeypatch.setenv("BLOCKER_DEPLOYMENT", "environment")
    monkeypatch.setenv("BLOCKER_TIMEZONE", "")
    settings = load(deployment="argument", node=None)
    assert (settings.deployment, settings.http.port, settings.http.max_batch) == ("argument", 2, 5)
    assert settings.timezone == "UTC", "an empty variable is none"


def test_lists_and_tables_are_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKER_ROLES", '["ingest"]')
    monkeypatch.setenv("BLOCKER_POLICIES", '{"family": {"lists": {"police": null}}}')
    settings = load()
    assert settings.roles == (Role.INGEST,)
    assert settings.policies["family"].lists == {"police": None}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("BLOCKER_ROLES", MARK, '"roles"'), ("BLOCKER_HTTP", MARK, '"http"'), ("BLOCKER_HTTP__PORT", MARK, "http.port"),
        ("BLOCKER_HTTP__PROT", "1", "http.prot"), ("BLOCKER_REDIS_URL", f"http://{MARK}@h/", "redis_url"),
        ("BLOCKER_LOG_LEVEL", MARK, "log_level"),
    ],
)  # fmt: skip
def test_a_bad_variable_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert expected in str(caught.value)
    assert MARK not in str(caught.value)
    assert "environment" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no\.toml does not exist"):
        load(tmp_path / "no.toml")
    with pytest.raises(SettingsError, match="does not exist or is no file"):
        load(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"bytes\.toml: cannot be read: UnicodeDecodeError"):
        load(tmp_path / "bytes.toml")


def test_a_machine_without_time_zone_data_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_key: str) -> ZoneInfo:
        raise ZoneInfoNotFoundError

    monkeypatch.setattr(settings_module, "ZoneInfo", missing)
    monkeypatch.setattr(settings_module, "available_timezones", set)
    with pytest.raises(SettingsError, match=r"timezone: cannot be looked up: .* install tzdata"):
        load()


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A settings model and those inside it."""
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and hasattr(part, "model_fields"):
                yield from models(part)


def test_settings_are_frozen_and_every_field_is_described() -> None:
    found = list(models(Settings))
    assert len(found) > 20, "the search finds what is there"
    for model in found:
        assert model.model_config["frozen"]
        for name, field in model.model_fields.items():
            inner = isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields")
            assert field.description or inner, f"{model.__name__}.{name}"


def test_a_mistyped_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKER_TIMEZON", "marked-value")
    with pytest.raises(SettingsError, match="BLOCKER_TIMEZON") as caught:
        load()
    assert "marked-value" not in str(caught.value)
