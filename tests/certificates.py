"""Certificates for tests: authorities, and what they sign, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "zones.isp.example"
_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority(Pair):
    """Signs certificates."""

    def __init__(self, directory: Path, name: str = "an authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory / "ca.pem", directory / "ca.key")
        _openssl("req", "-x509", *_NEW_KEY, "-days", "3650", "-subj", f"/CN={name}", "-keyout", self.key, "-out",
                 self.certificate)  # fmt: skip

    def sign(self, name: str = NAME, *addresses: str, days: int = 30, file: str = "") -> Pair:
        """A certificate of this name, and of addresses, for servers and clients."""
        made = Pair(*(self.certificate.with_name(f"{file or name}.{end}") for end in ("pem", "key")))
        wanted = made.certificate.with_suffix(".request")
        names = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
        _openssl("req", "-new", *_NEW_KEY, "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-keyout",
                 made.key, "-out", wanted)  # fmt: skip
        _openssl("x509", "-req", "-in", wanted, "-CA", self.certificate, "-CAkey", self.key, "-days", str(days),
                 "-copy_extensions", "copyall", "-out", made.certificate)  # fmt: skip
        return made


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
