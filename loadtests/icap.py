"""The icap gateway beside c-icap with url_check on hash tables of the same list: CPU time a REQMOD, in turns.

    python -m loadtests.icap [rounds]

Needs c-icap, its url_check module (Debian's libc-icap-mod-urlcheck) and a C compiler. 1 M rules; one request in a
hundred is listed; 16 connections stay open, each with one request at a time that allows 204. Our answers are checked;
what c-icap overlooks is shown.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from blocker.gateways.icap import reqmod
from loadtests.measure import Figures, Load, flawless, free_port, gateway, middle, needs, ratio, rounds, server, show
from loadtests.workload import domains, pages, urls, write_questions

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 16
CONFIGURATION = """
PidFile {directory}/pid
CommandsSocket {directory}/control
Port 127.0.0.1:{port}
Timeout 300
MaxKeepAliveRequests -1
KeepAliveTimeout 600
StartServers 1
MaxServers 1
MinSpareThreads 1
MaxSpareThreads 64
ThreadsPerChild 32
MaxRequestsPerChild 0
TmpDir {directory}
DebugLevel 0
Pipelining on
ModulesDir {libraries}
ServicesDir {libraries}
TemplateDir /usr/share/c_icap/templates/
ServerLog {directory}/server.log
LoadMagicFile /etc/c-icap/c-icap.magic
Service url_check_module srv_url_check.so
url_check.LookupTableDB domains domain hash:{directory}/domains
url_check.LookupTableDB pages url hash:{directory}/pages
url_check.Profile default block domains
url_check.Profile default block pages
url_check.Profile default pass ALL
"""


def peer(directory: Path, port: int) -> list[str]:
    """Write its tables and configuration; the command that starts it."""
    (directory / "domains").write_text("".join(f"{domain}: 1\n" for domain in domains()), "ascii")
    (directory / "pages").write_text("".join(f"{page}/: 1\n" for page in pages()), "ascii")
    configuration = directory / "c-icap.conf"
    libraries = next(Path("/usr/lib").glob("**/c_icap"))
    configuration.write_text(CONFIGURATION.format(directory=directory, port=port, libraries=libraries), "ascii")
    return ["c-icap", "-N", "-D", "-f", str(configuration)]


def question(url: str, service: str) -> bytes:
    """What a proxy asks."""
    head = f"GET {url} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n".encode()
    asked = reqmod(head, "Allow: 204")
    return asked.replace(b"icap://blocker/reqmod", b"icap://127.0.0.1/" + service.encode(), 1)


def questions(service: str) -> Iterator[tuple[bytes, int]]:
    """All of them."""
    return ((question(url, service), listed) for url, listed in urls())


def main() -> None:
    """Measure and print."""
    needs("c-icap")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        load = Load(directory)
        asked = {
            "icap": write_questions(directory / "own", questions("reqmod")),
            "c-icap": write_questions(directory / "peer", questions("url_check")),
        }
        ports = {"icap": free_port(), "c-icap": free_port()}
        with (
            server(gateway("icap", ports["icap"]), ports["icap"]) as own,
            server(
                peer(directory, ports["c-icap"]), ports["c-icap"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as other,
        ):
            pids = {"icap": own, "c-icap": other}
            found: dict[str, list[Figures]] = {"c-icap": [], "icap": []}
            for _ in range(rounds()):
                for side, rows in found.items():
                    rows.append(load.run("icap", asked[side], pids[side], ports[side], connections=CONNECTIONS))
    show("icap", found)
    ratio("icap, times c-icap, CPU", middle(found["icap"], "cpu") / middle(found["c-icap"], "cpu"), "0.5 or less")
    flawless(found["icap"])


if __name__ == "__main__":
    main()
