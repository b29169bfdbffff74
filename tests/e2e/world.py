"""Lists that change version by version, and what each version must answer, read from the oracle.

Three lists change independently: `bulk` blocks hosts, `pages` blocks pages, `pardon` excepts pages of hosts that
`pages` blocks whole. Each has a sample of URLs of its own that are listed where a bit of the version is set or is not,
so no two versions answer alike: whatever a node answers is explained by exactly one version of a list, or by none.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.oracle.matcher import Indexed, OracleList
from tests.oracle.rules import OracleRule, parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LISTS = ("bulk", "pages", "pardon")
# Versions below 2¹⁰ can be told apart.
BITS = 10
FILLER = 2000

Answer = tuple[str, str | None, str | None]


def lines(name: str, version: int) -> list[str]:
    """The entries of a list at a version."""
    set_bits = [(bit, version >> bit & 1) for bit in range(BITS)]
    match name:
        case "bulk":
            chosen = [f"http://bit{bit}-{value}.bulk.example/" for bit, value in set_bits]
            # Some of them come and go with each version, so that layers are large enough to be worth killing.
            return chosen + [f"http://filler{at}.bulk.example/" for at in range(FILLER) if (at + version) % 9]
        case "pages":
            return [
                *(f"http://pages.example/bit{bit}/{value}/" for bit, value in set_bits),
                *(f"http://pages.example/bit{bit}?is={value}" for bit, value in set_bits),
                *(f"http://whole{bit}.example/" for bit in range(BITS)),
            ]
        case _:
            return [f"http://whole{bit}.example/appeal/{value}" for bit, value in set_bits]


def sample(name: str) -> list[str]:
    """URLs whose answers tell the version of a list."""
    values = [(bit, value) for bit in range(BITS) for value in (0, 1)]
    match name:
        case "bulk":
            return [f"http://bit{bit}-{value}.bulk.example/any/page" for bit, value in values]
        case "pages":
            return [
                *(f"http://pages.example/bit{bit}/{value}/below" for bit, value in values),
                *(f"http://pages.example/bit{bit}?is={value}" for bit, value in values),
            ]
        case _:
            return [f"http://whole{bit}.example/appeal/{value}" for bit, value in values]


@cache
def _rule(line: str) -> OracleRule:
    return parse(line)


@cache
def expected(name: str, version: int) -> tuple[Answer, ...]:
    """What the sample of a list must be answered at a version."""
    # Hosts that `pages` blocks whole are the same in all of its versions.
    owners = ["pages", name] if name == "pardon" else [name]
    lists = {
        owner: OracleList(owner, [_rule(line) for line in lines(owner, version)], allow=owner == "pardon")
        for owner in owners
    }
    oracle = Indexed(lists)
    return tuple((found.verdict, found.list, found.kind) for found in map(oracle.decide, sample(name)))


class World:
    """The list files of a test, and what may be seen of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "lists"
        self.directory.mkdir(parents=True)
        self.version = dict.fromkeys(LISTS, 0)
        for name in LISTS:
            action = "allow" if name == "pardon" else "block"
            fields: dict[str, str | int] = {"format": "url", "action": action, "path": f"{name}.txt"}
            fields |= {"interval_seconds": 1, "jitter_seconds": 0}
            # A text or a number of JSON is one of TOML too.
            text = "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())
            (self.directory / f"{name}.toml").write_text(text)
            self.write(name)

    def write(self, name: str) -> None:
        """Put the next version of a list in place, as a careful operator would: aside, then renamed."""
        self.version[name] += 1
        beside = self.directory / f"{name}.new"
        beside.write_text("".join(f"{line}\n" for line in lines(name, self.version[name])))
        beside.replace(self.directory / f"{name}.txt")


class Witness:
    """Looks at a node's answers: each list at exactly one published version, and serials that only grow."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._urls = [url for name in LISTS for url in sample(name)]
        self._version_of: dict[tuple[str, int], int] = {}
        self._newest: dict[str, int] = defaultdict(int)
        self.looks = 0

    def restarted(self) -> None:
        """A node that starts may begin with what it last wrote to its disk."""
        self._newest.clear()

    def look(self, answers: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Check the answers to `urls`; the version of each list."""
        found: dict[str, int] = {}
        rest = list(answers)
        for name in LISTS:
            count = len(sample(name))
            found[name] = self._version(name, rest[:count])
            rest = rest[count:]
        assert not rest
        self.looks += 1
        return found

    @property
    def urls(self) -> list[str]:
        """What a node must be asked."""
        return self._urls

    @property
    def newest(self) -> dict[str, int]:
        """The versions that all must come to."""
        return dict(self._world.version)

    def _version(self, name: str, answers: Sequence[dict[str, Any]]) -> int:
        told = tuple((answer["verdict"], answer["list"], answer["kind"]) for answer in answers)
        explained = [version for version in range(1, self._world.version[name] + 1) if expected(name, version) == told]
        assert len(explained) == 1, f"{name}: {len(explained)} versions explain what was answered"
        serials = {answer["serial"] for answer in answers if answer["list"] == name}
        assert len(serials) == 1
        serial: int = serials.pop()
        assert serial >= self._newest[name], f"{name}: serial {serial} after {self._newest[name]}"
        self._newest[name] = serial
        known = self._version_of.setdefault((name, serial), explained[0])
        assert known == explained[0], f"{name}: serial {serial} was version {known} and is {explained[0]}"
        older = [other for (owner, before), other in self._version_of.items() if owner == name and before < serial]
        assert all(other < explained[0] for other in older), f"{name}: a later serial is an earlier version"
        return explained[0]
