"""The load generator sees what is right and what is wrong, in every protocol; its figures are another matter."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blocker.gateways.spoe import hello, notify
from loadtests import gateway, icap, squid_guard
from loadtests.measure import SOURCES, figures
from loadtests.spoe import check_question
from loadtests.workload import lines, matcher, urls, write_questions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULES, QUESTIONS = 1000, 3000
PROTOCOLS: dict[str, tuple[str, Callable[[str], bytes], bytes]] = {
    "check": ("http", check_question, b""),
    "spoe": ("spop", lambda url: notify(url.encode()), hello()),
    "icap": ("icap", lambda url: icap.question(url, "reqmod"), b""),
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("load") / "load"
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCES / "load.c"], check=True)
    return program


async def asked(load: Path, *words: str) -> dict[str, Any]:
    running = await asyncio.create_subprocess_exec(load, *words, stdout=asyncio.subprocess.PIPE)
    told, _ = await running.communicate()
    assert running.returncode == 0
    found: dict[str, Any] = json.loads(told)
    assert found["asked"] == sum(phase["answers"] for phase in found["phases"]) > 0
    assert figures(told, 1.0).rate > 0
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(("depth", "rate"), [(1, 0), (64, 0), (1, 2000)])
async def test_answers_of_gateways_are_counted_and_checked(
    tmp_path: Path, load: Path, name: str, depth: int, rate: int
) -> None:
    protocol, question, greeting = PROTOCOLS[name]
    listener = gateway.listener(name, gateway.alone(RULES), 0)
    await listener.start()
    try:
        for mistaken in (False, True):
            asking = ((question(url), listed != mistaken) for url, listed in urls(QUESTIONS, RULES))
            path = write_questions(tmp_path / "questions", asking, greeting)
            found = await asked(load, protocol, "2", str(depth), str(rate), "0.2", str(path), str(listener.port))
            assert found["lost"] == 0
            if mistaken:
                assert found["missed"] + found["excess"] == found["asked"]
            else:
                assert found["missed"] == found["excess"] == 0
    finally:
        await listener.stop()


def test_lists_of_all_peers_are_the_same() -> None:
    assert len(lines(RULES)) == RULES == len(set(lines(RULES)))
    listed = [url for url, listed in urls(QUESTIONS, RULES) if listed]
    assert len(listed) == QUESTIONS // 100
    ours = matcher(RULES)
    for url, expected in urls(QUESTIONS, RULES):
        assert (ours.decide(url).verdict == "block") == expected
    asked = list(squid_guard.questions(RULES))
    assert all(question.endswith(b" GET\n") for question, _ in asked)
