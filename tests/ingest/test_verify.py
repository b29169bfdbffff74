"""Verified sources: nothing of a list is given on, parsed or published unless what vouches for it holds."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from blocker.errors import FetchError, SourceError
from blocker.ingest.fetch import open_source
from blocker.ingest.source import Source, load_source
from blocker.ingest.verify import Verifier
from tests.ingest.checks import LATER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.ingest.conftest import MakeSource

BODY = b"http://a.example/\nhttp://b.example/x\n"
SUM = hashlib.sha256(BODY).hexdigest()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
KEY_ID = b"\x01\x23\x45\x67\x89\xab\xcd\xef"
COMMENT = b"timestamp:1700000000\tfile:urls.txt\thashed"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def minisign_key(key: Ed25519PrivateKey = KEY, key_id: bytes = KEY_ID) -> str:
    return b64(b"Ed" + key_id + key.public_key().public_bytes_raw())


def minisig(
    message: bytes = BODY, *, algorithm: bytes = b"ED", key: Ed25519PrivateKey = KEY, key_id: bytes = KEY_ID,
    end: bytes = b"\n",
) -> bytes:  # fmt: skip
    """A signature file made from the format's description alone."""
    signature = key.sign(hashlib.blake2b(message).digest() if algorithm == b"ED" else message)
    lines = [
        b"untrusted comment: signature from a test", base64.b64encode(algorithm + key_id + signature),
        b"trusted comment: " + COMMENT, base64.b64encode(key.sign(signature + COMMENT)),
    ]  # fmt: skip
    return b"".join(line + end for line in lines)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def fetch(source: Source, state: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, str]] | None:
    async with open_source(source, state or {}, now=LATER) as download:
        if download is None:
            return None
        data = b"".join([chunk async for chunk in download.chunks()])
        return data, download.state()


async def fault_of(source: Source) -> str:
    """The error's text, after checking that not one byte was given on."""
    given: list[bytes] = []

    async def read() -> None:
        async with open_source(source, {}, now=LATER) as download:
            assert download is not None
            async for chunk in download.chunks():
                given.append(chunk)

    with pytest.raises(FetchError) as caught:
        await read()
    assert given == []
    return str(caught.value)


# What a signature file is made of, in any order and number.
PIECES = [b"untrusted comment: x\n", b"trusted comment: x\n", b"\n", b"RUQ=\n", base64.b64encode(bytes(74)) + b"\n",
          base64.b64encode(b"ED" + KEY_ID + bytes(64)) + b"\n", base64.b64encode(bytes(64)) + b"\n"]  # fmt: skip


@pytest.fixture
def signed(file_source: MakeSource, tmp_path: Path) -> Callable[..., Source]:
    """Makes sources of BODY, or another body, with a signature file beside it."""

    def make(signature: bytes, body: bytes = BODY, **key: str) -> Source:
        (tmp_path / "signature").write_bytes(signature)
        table = {"signature_path": tmp_path / "signature", **(key or {"minisign_key": minisign_key()})}
        return file_source(body, verify=table)

    return make


# --- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("algorithm", [b"ED", b"Ed"])
async def test_a_minisign_signature_passes_and_no_other_list_does(
    signed: Callable[..., Source], algorithm: bytes, end: bytes
) -> None:
    signature = minisig(algorithm=algorithm, end=end)
    found = await fetch(signed(signature))
    assert found is not None
    assert (found[0], found[1]["sha256"]) == (BODY, SUM)
    for other in (BODY[:-1], BODY + b"\n", flipped(BODY, 8), BODY[::-1]):
        text = await fault_of(signed(signature, other))
        assert text == "file: unverified: the signature is not one of this list by this key; the list stays as it is"


@pytest.mark.parametrize("algorithm", [b"ED", b"Ed"])
async def test_every_byte_of_a_minisign_signature_but_the_untrusted_comment_counts(
    signed: Callable[..., Source], algorithm: bytes
) -> None:
    signature = minisig(algorithm=algorithm)
    free = range(len(b"untrusted comment: "), signature.index(b"\n"))
    for at in range(len(signature) - 1):  # the last end of line may be missing
        if at in free:
            assert await fetch(signed(flipped(signature, at))) is not None, at
        else:
            assert "unverified: " in await fault_of(signed(flipped(signature, at))), at


@pytest.mark.parametrize("whole", [minisig(), minisig(algorithm=b"Ed")])
async def test_a_cut_minisign_signature_is_none(signed: Callable[..., Source], whole: bytes) -> None:
    for end in range(1, len(whole) - 1):
        assert "unverified: " in await fault_of(signed(whole[:end])), end
    assert await fetch(signed(whole[:-1])) is not None
    assert "expected 4 lines, got 5" in await fault_of(signed(whole + b"more\n"))
    assert "empty" in await fault_of(signed(b""))


@pytest.mark.parametrize("part", [(0, 2), (2, 10), (10, 42), (42, 74)], ids=["algorithm", "key id", "R", "S"])
async def test_each_part_of_the_signature_record_counts(signed: Callable[..., Source], part: tuple[int, int]) -> None:
    lines = minisig().split(b"\n")
    record = base64.b64decode(lines[1])
    for at in range(*part):
        lines[1] = base64.b64encode(flipped(record, at))
        assert "unverified: " in await fault_of(signed(b"\n".join(lines)))


async def test_an_algorithm_is_not_taken_for_the_other(signed: Callable[..., Source]) -> None:
    for algorithm in (b"ED", b"Ed"):
        lines = minisig(algorithm=algorithm).split(b"\n")
        record = base64.b64decode(lines[1])
        lines[1] = base64.b64encode((b"Ed" if algorithm == b"ED" else b"ED") + record[2:])
        assert "not one of this list" in await fault_of(signed(b"\n".join(lines)))


async def test_another_key_is_named_by_its_id(signed: Callable[..., Source]) -> None:
    text = await fault_of(signed(minisig(key=OTHER, key_id=b"\0" * 7 + b"\x01")))
    assert "signed by another key: expected key id EFCDAB8967452301, got 0100000000000000" in text
    # The id is no secret: with the right one, the signature must still be the key's.
    assert "trusted comment is forged" in await fault_of(signed(minisig(key=OTHER)))


@pytest.mark.parametrize("form", ["raw", "base64", "base64 and end of line"])
async def test_a_plain_ed25519_signature(signed: Callable[..., Source], form: str) -> None:
    def written(signature: bytes) -> bytes:
        text = base64.b64encode(signature) + (b"\n" if "end" in form else b"")
        return signature if form == "raw" else text

    public = b64(KEY.public_key().public_bytes_raw())
    signature = KEY.sign(BODY)
    found = await fetch(signed(written(signature), ed25519_key=public))
    assert found is not None
    assert found[0] == BODY
    for at in range(64):
        assert "unverified: " in await fault_of(signed(written(flipped(signature, at)), ed25519_key=public))
    for length in (1, 32, 63):
        assert "expected base64 of 64 bytes" in await fault_of(signed(written(signature[:length]), ed25519_key=public))
    assert "expected base64 of 64 bytes" in await fault_of(signed(written(signature + b"x"), ed25519_key=public))
    assert "not one of this list" in await fault_of(signed(written(OTHER.sign(BODY)), ed25519_key=public))
    assert "not one of this list" in await fault_of(signed(written(signature), BODY[:-1], ed25519_key=public))


@pytest.mark.parametrize("options", [[], ["-l"]], ids=["prehashed", "legacy"])
async def test_the_real_minisign_agrees(signed: Callable[..., Source], tmp_path: Path, options: list[str]) -> None:
    def minisign(*arguments: str | Path) -> None:
        subprocess.run(["minisign", *arguments], check=True, capture_output=True, input=b"\n\n", timeout=60)

    message, public, private = tmp_path / "message", tmp_path / "key.pub", tmp_path / "key"
    message.write_bytes(BODY)
    minisign("-G", "-W", "-p", public, "-s", private)
    minisign("-S", "-W", *options, "-s", private, "-m", message, "-t", "W\u00f6rter 1")
    signature = (tmp_path / "message.minisig").read_bytes()
    key = public.read_text().splitlines()[1]
    assert await fetch(signed(signature, minisign_key=key)) is not None
    assert "not one of this list" in await fault_of(signed(signature, BODY + b"\n", minisign_key=key))
    # And the other way: it accepts what these tests make.
    message.with_name("message.minisig").write_bytes(minisig(algorithm=b"Ed" if options else b"ED"))
    minisign("-V", "-P", minisign_key(), "-m", message)


@given(st.binary(max_size=400) | st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join))
def test_any_other_bytes_are_refused_by_name(data: bytes) -> None:
    source = Source.model_validate(
        {"name": "x", "format": "url", "path": "x", "verify": {"minisign_key": minisign_key(), "signature_path": "s"}}
    )
    assert source.verify is not None
    with pytest.raises(FetchError, match="unverified: "):
        Verifier(source, source.verify, {"signature": data})


# --- checksums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        SUM, SUM.upper(), f"{SUM}\r\n", f"{SUM}  other-name.txt\n", f"{SUM} *list.txt\n",
        f"SHA256 (list.txt) = {SUM}\n",
        f"# sums\n{'0' * 64}  a.txt\n{SUM}  ./lists/list.txt\n{'1' * 40}  list.txt\n",
    ],
)  # fmt: skip
async def test_a_checksum_file_vouches_for_the_list(file_source: MakeSource, tmp_path: Path, text: str) -> None:
    (tmp_path / "sums").write_text(text, newline="")
    source = file_source(BODY, verify={"sha256_path": tmp_path / "sums"})
    assert await fetch(source) is not None
    file_source(flipped(BODY, 8))
    assert "unverified: the list's SHA-256 is not the expected one" in await fault_of(source)


@pytest.mark.parametrize(
    "text",
    ["\n", SUM[:-1], "x" + SUM, f"{SUM}  a\n{'0' * 64}  b\n", f"{SUM} list.txt\n{'0' * 64} list.txt\n", "\0\xff"],
)
async def test_a_checksum_file_without_a_clear_answer_is_none(
    file_source: MakeSource, tmp_path: Path, text: str
) -> None:
    (tmp_path / "sums").write_text(text, encoding="latin-1")
    assert "unverified: the checksum file holds" in await fault_of(
        file_source(BODY, verify={"sha256_path": tmp_path / "sums"})
    )


async def test_a_checksum_and_a_signature_must_both_hold(file_source: MakeSource, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(minisig())
    table = {"minisign_key": minisign_key(), "signature_path": tmp_path / "s"}
    assert await fetch(file_source(BODY, verify={**table, "sha256": SUM.upper()})) is not None
    assert "SHA-256 is not" in await fault_of(file_source(BODY, verify={**table, "sha256": "0" * 64}))
    (tmp_path / "s").write_bytes(minisig(b"other"))
    assert "the signature is not" in await fault_of(file_source(BODY, verify={**table, "sha256": SUM}))


# --- the table -------------------------------------------------------------------------------------------------------

GOOD = 'format = "url"\npath = "x"\n[verify]\n'
PUBLIC = f'ed25519_key = "{b64(bytes(range(32)))}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD, "verify: the table is empty; give a sha256 or a key"),
        (GOOD + 'sha265 = "0"\n', "verify.sha265: unknown field; allowed: sha256, sha256_url"),
        (GOOD + 'sha256 = "0"\n', "verify.sha256: "),
        (GOOD + 'sha256_path = "a"\nsha256_url = "https://h.example/"\n', "only one of sha256, sha256_url and"),
        (GOOD + 'sha256_url = "http://h.example/MARK"\n', "verify.sha256_url: must begin with https://"),
        (GOOD + 'sha256_url = "https://u:MARK@h.example/"\n', "verify.sha256_url: must hold no user or password"),
        (GOOD + 'signature_url = "https://h.example:MARK/"\n' + PUBLIC, "verify.signature_url: is no URL"),
        (GOOD + 'signature_path = "s"\n', "a key needs exactly one of signature_url and signature_path"),
        (GOOD + PUBLIC, "a key needs exactly one of signature_url and signature_path"),
        (
            GOOD + PUBLIC + 'signature_path = "s"\nsignature_url = "https://h.example/"\n',
            "exactly one of signature_url",
        ),
        (GOOD + PUBLIC + f'minisign_key = "{minisign_key()}"\nsignature_path = "s"\n', "only one of ed25519_key and"),
        (GOOD + 'ed25519_key = "MARK"\nsignature_path = "s"\n', "verify.ed25519_key: expected base64 of 32 bytes"),
        (GOOD + f'ed25519_key = "{b64(bytes(32))}"\nsignature_path = "s"\n', "is all zeros"),
        (GOOD + 'minisign_key = "RWMARK"\nsignature_path = "s"\n', "expected base64 of 42 bytes: the public key"),
        (GOOD + f'minisign_key = "{b64(b"XX" + bytes(40))}"\nsignature_path = "s"\n', "is no minisign public key"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError) as caught:
        load_source(tmp_path / "x.toml")
    assert said in str(caught.value)
    assert "MARK" not in str(caught.value)


def test_an_address_in_the_table_is_not_shown(web_source: MakeSource) -> None:
    source = web_source(verify={"sha256_url": "https://h.example/MARK?MARK"})
    assert "MARK" not in repr(source) + str(source) + source.model_dump_json() + source.fingerprint()
    assert source.fingerprint() != web_source(verify={"sha256_url": "https://h.example/"}).fingerprint()
