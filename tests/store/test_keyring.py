from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocker.errors import KeyMaterialError
from blocker.store.sealing import LOOKUP_FILE, SEAL_FILE, Keyring

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys"


def test_makes_both_keys_once(directory: Path) -> None:
    first = Keyring.load_or_create(directory, create=True)
    assert len(first.lookup) == 16
    assert first.seal is not None
    assert len(first.seal) == 32
    assert Keyring.load_or_create(directory, create=True) == first
    assert Keyring.load_or_create(directory, create=False) == first
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in directory.iterdir()} == {LOOKUP_FILE, SEAL_FILE}
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes().endswith(b"\n")
        assert bytes.fromhex(path.read_text().strip()) in (first.lookup, first.seal)


def test_two_deployments_get_different_keys(tmp_path: Path) -> None:
    one = Keyring.load_or_create(tmp_path / "one", create=True)
    two = Keyring.load_or_create(tmp_path / "two", create=True)
    assert one.lookup_fingerprint != two.lookup_fingerprint
    assert one.seal_fingerprint != two.seal_fingerprint


def test_a_decision_node_holds_the_lookup_key_alone(directory: Path) -> None:
    both = Keyring.load_or_create(directory, create=True)
    (directory / SEAL_FILE).unlink()
    for create in (False, True):
        node = Keyring.load_or_create(directory, create=create)
        assert node.lookup == both.lookup
        assert node.seal is None
        assert node.seal_fingerprint is None


def test_without_creating_a_missing_key_is_named(directory: Path) -> None:
    with pytest.raises(KeyMaterialError, match=rf"{LOOKUP_FILE}.*copy the deployment's key files"):
        Keyring.load_or_create(directory, create=False)
    assert not directory.exists()


def test_a_crash_between_the_keys_is_made_good(directory: Path) -> None:
    first = Keyring.load_or_create(directory, create=True)
    (directory / LOOKUP_FILE).unlink()  # the lookup key is made last
    second = Keyring.load_or_create(directory, create=True)
    assert second.seal == first.seal
    assert len(second.lookup) == 16


@pytest.mark.parametrize("name", [LOOKUP_FILE, SEAL_FILE])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o777])
def test_a_key_that_others_can_reach_is_refused(directory: Path, name: str, mode: int) -> None:
    Keyring.load_or_create(directory, create=True)
    (directory / name).chmod(mode)
    with pytest.raises(KeyMaterialError, match=rf"{name}: mode {mode:04o}.*chmod 600"):
        Keyring.load_or_create(directory, create=True)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_directory_that_others_can_write_is_refused(directory: Path, mode: int) -> None:
    Keyring.load_or_create(directory, create=True)
    directory.chmod(mode)
    with pytest.raises(KeyMaterialError, match="chmod 700"):
        Keyring.load_or_create(directory, create=False)


BROKEN: list[Callable[[bytes], bytes]] = [
    lambda _: b"",
    lambda text: text[:-1],
    lambda text: text[:-2] + b"\n",
    lambda text: text[:-1] + b"0\n",
    lambda text: text + b"\n",
    lambda text: text[:-1] + b"\r\n",
    lambda text: b"g" + text[1:],
    lambda text: b" " + text[1:],
    lambda text: bytes.fromhex(text.decode()),
]


@pytest.mark.parametrize("name", [LOOKUP_FILE, SEAL_FILE])
@pytest.mark.parametrize("breaking", BROKEN)
def test_a_malformed_key_is_refused_and_not_shown(
    directory: Path, name: str, breaking: Callable[[bytes], bytes]
) -> None:
    Keyring.load_or_create(directory, create=True)
    path = directory / name
    good = path.read_bytes()
    path.write_bytes(breaking(good))
    with pytest.raises(KeyMaterialError, match=rf"{name}: expected \d+ hex digits and a newline; restore") as caught:
        Keyring.load_or_create(directory, create=False)
    assert good.decode().strip()[:8] not in str(caught.value)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyMaterialError, match=r"file.*Not a directory.*data_dir"):
        Keyring.load_or_create(tmp_path / "file" / "keys", create=True)


def test_its_text_forms_hide_the_keys(directory: Path) -> None:
    keyring = Keyring.load_or_create(directory, create=True)
    assert keyring.seal is not None
    for text in (repr(keyring), str(keyring), f"{keyring}"):
        for key in (keyring.lookup, keyring.seal):
            assert key.hex() not in text
            assert repr(key) not in text


def test_threads_that_start_at_once_agree(directory: Path) -> None:
    for attempt in range(20):
        place = directory / str(attempt)
        barrier = threading.Barrier(8)
        found: list[Keyring] = []

        def run(place: Path = place, barrier: threading.Barrier = barrier, found: list[Keyring] = found) -> None:
            barrier.wait()
            found.append(Keyring.load_or_create(place, create=True))

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert all(keyring == found[0] and keyring.seal is not None for keyring in found)
        assert len([*place.iterdir()]) == 2


PROCESS = """
import sys
from pathlib import Path
from blocker.store.sealing import Keyring
print("ready", flush=True)
sys.stdin.readline()
print(Keyring.load_or_create(Path(sys.argv[1]), create=True))
"""


def test_processes_that_start_at_once_agree(directory: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2], env={**os.environ},
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = {process.communicate("go\n")[0] for process in processes}
    assert said == {f"{Keyring.load_or_create(directory, create=False)}\n"}
