"""What `deploy/bird` gives to the kernel, in a network namespace of its own: a listed address goes to the URL filter
while that can be reached, and the usual way when it cannot."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import STOP_DEADLINE, spawn, until
from tests.feeds.knot import binary
from tests.feeds.network import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ROUTER, FEED = "192.0.2.1", "192.0.2.10"
LISTED, LISTED6 = "198.18.0.7", "2001:db8:1::7"
# Both lead to interfaces of their own: the URL filter, as an IGP tells of it, and the network around listed addresses.
AROUND = """
protocol static igp4 { ipv4; route 192.0.2.80/32 via "filter0"; }
protocol static igp6 { ipv6; route 2001:db8::80/128 via "filter0"; }
protocol static covering4 { ipv4; route 198.18.0.0/24 via "inner0"; }
protocol static covering6 { ipv6; route 2001:db8:1::/64 via "inner0"; }
"""
STATIC = f"""static {{
        route {LISTED}/32 next-hop 192.0.2.80 community [ 65001:451 65535:65281 ];
        route {LISTED6}/128 next-hop 2001:db8::80 community [ 65001:451 65535:65281 ];
    }}"""
LINKS = """
ip link set lo up
ip address add 192.0.2.1/32 dev lo
ip address add 192.0.2.10/32 dev lo
for one in filter inner; do
    ip link add ${one}0 type veth peer name ${one}1
    ip link set ${one}0 up
    ip link set ${one}1 up
done
echo ready
exec sleep infinity
"""


class Namespace:
    """Processes in a network of their own, which ends with them."""

    def __init__(self, directory: Path) -> None:
        unshare = shutil.which("unshare")
        assert unshare, "this test needs unshare"
        command = [unshare, "--user", "--map-root-user", "--net", "sh", "-ec", LINKS]
        self.directory = directory
        self._keeper = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n", "this test needs a network namespace of its own"
        # setpriv and unshare become sh, which becomes sleep: one process.
        self._enter = ["nsenter", f"--target={self._keeper.pid}", "--user", "--net", "--preserve-credentials", "--"]
        self._started = [self._keeper]

    def start(self, *command: str) -> None:
        with (self.directory / "log").open("ab") as log:
            self._started.append(spawn([*self._enter, *command], stdout=log, stderr=log, cwd=self.directory))

    def say(self, *command: str) -> str:
        done = subprocess.run([*self._enter, *command], capture_output=True, text=True, check=False, cwd=self.directory)
        return done.stdout

    def stop(self) -> None:
        for process in reversed(self._started):
            process.terminate()
            process.wait(STOP_DEADLINE)
        for pipe in (self._keeper.stdout, self._keeper.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    made = Namespace(tmp_path)
    yield made
    made.stop()


def way(namespace: Namespace, address: str) -> str:
    """The interface by which the kernel sends to an address; empty if it does not."""
    found = re.search(r" dev (\S+)", namespace.say("ip", "route", "get", address))
    return found[1] if found else ""


def kernel(namespace: Namespace) -> str:
    shown = ("route", "show", "table", "all", "proto", "bird")
    return "".join(namespace.say("ip", family, *shown) for family in ("-4", "-6"))


def configure(directory: Path) -> Sequence[str]:
    """BIRD's file and ExaBGP's, as they are but for routes of ExaBGP's own; how ExaBGP is started."""
    (directory / "bird.conf").write_text((DEPLOY / "bird" / "bird.conf").read_text("utf-8") + AROUND, "utf-8")
    text = (DEPLOY / "exabgp" / "exabgp.conf").read_text("utf-8")
    text = re.sub(r"(?ms)^process blocker \{.*?^\}\n", "", text)
    text = re.sub(r"(?ms)^    api \{.*?^    \}\n", f"    {STATIC}\n", text)
    (directory / "exabgp.conf").write_text(text, "utf-8")
    settings = (DEPLOY / "exabgp" / "exabgp.env").read_text("utf-8").replace("'exabgp'", "'root'")
    (directory / "exabgp.env").write_text(settings, "utf-8")
    return [binary("exabgp"), "--env", f"{directory}/exabgp.env", f"{directory}/exabgp.conf"]


def test_a_filter_that_cannot_be_reached_loses_no_traffic(namespace: Namespace, tmp_path: Path) -> None:
    exabgp = configure(tmp_path)
    namespace.start(binary("bird"), "-f", "-c", "bird.conf", "-s", "ctl", "-P", "pid")
    until((tmp_path / "ctl").exists)
    namespace.start(*exabgp)
    birdc = [binary("birdc"), "-s", "ctl"]
    for address, igp in ((LISTED, "igp4"), (LISTED6, "igp6")):
        until(lambda address=address: way(namespace, address) == "filter0")  # type: ignore[misc]
        namespace.say(*birdc, "disable", igp)
        until(lambda address=address: way(namespace, address) == "inner0")  # type: ignore[misc]
        said = namespace.say(*birdc, "show", "route", "for", address)
        assert "unreachable [blocker" in said, "BIRD has it"
        assert f"{address}" not in kernel(namespace), "and the kernel has not"
        namespace.say(*birdc, "enable", igp)
        until(lambda address=address: way(namespace, address) == "filter0")  # type: ignore[misc]
