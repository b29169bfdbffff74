"""squidGuard with a Berkeley DB of the same list, as several load tests have it for a peer."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from loadtests.workload import RULES, domains, pages, urls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION = """
dbhome {directory}
logdir {directory}
dest listed {{
  domainlist domains
  urllist urls
}}
acl {{
  default {{
    pass !listed all
    redirect {page}
  }}
}}
"""
STOP_PAGE = "http://stop.example/"


def build(directory: Path, rules: int = RULES) -> list[str]:
    """Make its database; the command that starts it."""
    directory.mkdir()
    (directory / "domains").write_text("".join(f"{domain}\n" for domain in domains(rules)), "ascii")
    (directory / "urls").write_text("".join(f"{page}\n" for page in pages(rules)), "ascii")
    configuration = directory / "squidGuard.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory, page=STOP_PAGE), "ascii")
    command = ["squidGuard", "-c", str(configuration)]
    subprocess.run([*command, "-C", "all"], check=True)
    return command


def questions(rules: int = RULES) -> Iterator[tuple[bytes, int]]:
    """What Squid writes to a rewriter, and whether it is to be redirected."""
    return ((f"{url} 192.0.2.1/- - GET\n".encode(), listed) for url, listed in urls(rules=rules))
