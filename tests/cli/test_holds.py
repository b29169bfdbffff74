"""Holds: they let through what they say and nothing more, end by themselves, and tell who made them and why."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from blocker.ingest.expiry import Expiry
from blocker.store.redis import Store
from blocker.store.sealing import Keyring

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

LATER = (datetime.now(UTC) + timedelta(days=10)).date().isoformat()


@pytest.fixture
def mine(empty: CommandLine) -> CommandLine:
    """A host and a page that are blocked."""
    empty.source("mine", 'format = "url"\npath = "mine.txt"\n', "http://whole.example/\nhttp://page.example/one.html\n")
    assert empty("lists", "pull").code == 0
    return empty


def verdict(blocker: CommandLine, url: str) -> tuple[str, str | None]:
    told = blocker("check", url, "--json").json
    return told["verdict"], told["list"]


def test_a_hold_covers_what_it_says(mine: CommandLine) -> None:
    ran = mine("lists", "hold", "http://whole.example/wrong/", "--until", LATER, "--reason", "appeal 7", "--json")
    assert ran.code == 0
    number = ran.json["number"]
    assert verdict(mine, "http://whole.example/wrong/page") == ("allow", "holds")
    assert verdict(mine, "http://whole.example/other") == ("block", "mine")
    assert verdict(mine, "http://page.example/one.html") == ("block", "mine")
    (row,) = mine("lists", "holds", "--json").json
    assert (row["number"], row["until"], row["reason"]) == (number, LATER, "appeal 7")
    assert row["by"]
    assert "whole" not in mine("lists", "holds").out
    assert "http://whole.example/wrong/" in mine("lists", "holds", "--urls").out
    assert mine("lists", "unhold", number).out == f"{number}: ended; 0 holds left\n"
    assert verdict(mine, "http://whole.example/wrong/page") == ("block", "mine")
    assert mine("lists", "holds").out == "no holds\n"
    records = mine("lists", "audit", "holds", "--json").json
    assert [record["action"] for record in records] == ["unhold", "hold"]
    assert "example" not in str(records)


def test_a_hold_at_equal_specificity_wins_and_one_above_does_not(mine: CommandLine) -> None:
    assert mine("lists", "hold", "http://page.example/one.html", "--until", LATER, "--reason", "r").code == 0
    assert verdict(mine, "http://page.example/one.html") == ("allow", "holds")
    assert mine("lists", "hold", "http://whole.example/", "--until", LATER, "--reason", "r").code == 0
    assert verdict(mine, "http://whole.example/x") == ("allow", "holds")
    assert len(mine("lists", "holds", "--json").json) == 2
    again = mine("lists", "hold", "http://whole.example/", "--until", LATER, "--reason", "other")
    assert again.code == 0
    assert sorted(row["reason"] for row in mine("lists", "holds", "--json").json) == ["other", "r"]


def test_a_hold_ends_by_itself(mine: CommandLine) -> None:
    assert mine("lists", "hold", "http://page.example/one.html", "--until", LATER, "--reason", "r").code == 0

    async def sweep(days: int) -> None:
        keyring = Keyring.load_or_create(mine.data_dir / "keys", create=False)
        async with await Store.open(mine.settings["redis_url"], mine.settings["deployment"], keyring=keyring) as store:
            await Expiry(store, keyring).sweep(time.time() + days * 86_400)

    asyncio.run(sweep(9))
    assert verdict(mine, "http://page.example/one.html") == ("allow", "holds")
    asyncio.run(sweep(11))
    assert verdict(mine, "http://page.example/one.html") == ("block", "mine")


def test_refusals(mine: CommandLine) -> None:
    past = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    far = (datetime.now(UTC) + timedelta(days=400)).date().isoformat()
    for day in (past, far):
        assert "one of the next 366 days" in mine.refused(
            "lists", "hold", "http://a.example/", "--until", day, "--reason", "r"
        )
    assert "has a reason" in mine.refused("lists", "hold", "http://a.example/", "--until", LATER, "--reason", " ")
    told = mine.refused("lists", "hold", "http://marked entry/", "--until", LATER, "--reason", "r")
    assert "marked" not in told
    assert mine("lists", "hold", "http://a.example/", "--until", "tomorrow", "--reason", "r").code == 2
    assert "no hold of that number" in mine.refused("lists", "unhold", "H-0")
    mine.source("holds", 'format = "url"\npath = "holds.txt"\n', "http://a.example/\n")
    assert "holds is the list of holds" in mine("lists", "pull").err
