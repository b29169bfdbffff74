"""`blocker tokens`: shown once, kept as a digest, rotated and revoked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


def make(blocker: CommandLine, name: str = "anna", *more: str) -> str:
    ran = blocker("tokens", "create", name, "--person", "Anna A.", "--role", "maintainer", "--list", "mine", *more)
    assert ran.code == 0
    assert "It is not shown again" in ran.err
    return ran.out.strip()


def test_a_token_is_shown_once(empty: CommandLine) -> None:
    text = make(empty)
    assert re.fullmatch(r"blk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", text)
    (row,) = empty("tokens", "ls", "--json").json
    assert (row["name"], row["person"], row["roles"], row["lists"]) == ("anna", "Anna A.", ["maintainer"], ["mine"])
    assert (row["state"], row["last_used"]) == ("valid", None)
    shown = empty("tokens", "ls").out
    assert text[:13] in shown
    assert text[13:] not in shown
    assert "is a token anna already" in empty.refused("tokens", "create", "anna", "--person", "B", "--role", "viewer")


def test_rotating_and_revoking(empty: CommandLine) -> None:
    first = make(empty)
    second = empty("tokens", "rotate", "anna", "--json").json["token"]
    assert (second[:13], second == first) == (first[:13], False)
    assert empty("tokens", "revoke", "anna").out == "revoked anna\n"
    assert empty("tokens", "ls", "--json").json[0]["state"] == "revoked"
    assert "no valid token" in empty.refused("tokens", "rotate", "anna")
    make(empty)  # the name is free again
    records = empty("lists", "audit", "--json").json
    assert [record["action"] for record in records] == ["token-create", "token-revoke", "token-rotate", "token-create"]
    assert first[13:] not in str(records)
    assert empty("lists", "audit", "--verify").code == 0


def test_refusals(empty: CommandLine) -> None:
    assert empty("tokens", "ls").out.startswith("no tokens yet")
    assert empty("tokens", "create", "anna", "--person", "A").code == 2
    assert empty("tokens", "create", "anna", "--person", "A", "--role", "king").code == 2
    assert empty("tokens", "create", "anna", "--person", "A", "--role", "viewer", "--expires", "0").code == 2
    assert "must be 1 to 63" in empty.refused("tokens", "create", "A B", "--person", "A", "--role", "viewer")
    assert "printable" in empty.refused("tokens", "create", "anna", "--person", "A\nB", "--role", "viewer")
    assert "must be 1 to 63" in empty.refused(
        "tokens", "create", "anna", "--person", "A", "--role", "maintainer", "--list", "No such"
    )
