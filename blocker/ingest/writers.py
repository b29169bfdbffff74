"""How each list format writes a rule; whether it is read as that rule again is for export.py to find out."""

from __future__ import annotations

import csv
import io
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from blocker.rules import Kind, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Kind, host, path, query, subdomains, reference, metadata.
Listed = tuple[str, str, str | None, str | None, bool, str, str]

_COLUMNS = ("url", "reference", "category", "added", "expires")


def head(format: str, name: str, serial: int) -> list[str]:  # noqa: A002 - the project's word
    """The lines before the first rule."""
    title = f"list {name}, serial {serial}"
    match format:
        case "csv":
            return [",".join(_COLUMNS)]
        case "jsonl":
            return []
        case "adblock":
            return [f"! {title}"]
        case "rpz":
            return [
                f"; {title}",
                "$TTL 300",
                f"@ IN SOA localhost. hostmaster.localhost. {serial % 2**32} 3600 600 86400 300",
                "  IN NS localhost.",
            ]
        case _:
            return [f"# {title}"]


def _url(rule: Listed) -> str:
    kind, host, path, query, subdomains, _, _ = rule
    return str(Rule(kind=Kind(kind), host=host, path=path, query=query, subdomains=subdomains))


def _fields(rule: Listed) -> dict[str, str]:
    metadata = json.loads(rule[6]) if rule[6] else {}
    fields = {"url": _url(rule), "reference": rule[5], **{name: metadata.get(name, "") for name in _COLUMNS[2:]}}
    return {name: fields[name] for name in _COLUMNS}


def _csv(rule: Listed) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(_fields(rule).values())
    return text.getvalue()


def _jsonl(rule: Listed) -> str:
    given = {name: value for name, value in _fields(rule).items() if value}
    return json.dumps(given, ensure_ascii=False, separators=(",", ":"))


def _rpz(rule: Listed) -> str:
    kind, host = rule[0], rule[1]
    below = f"\n*.{host} CNAME ." if kind == "domain" else ""
    return f"{host} CNAME .{below}"


def _adblock(rule: Listed) -> str:
    kind, host, path, query, subdomains, _, _ = rule
    if kind == "domain":
        return f"||{host}^"
    start = f"||{host}" if subdomains else f"|http://{host}"
    if kind == "host":
        return f"{start}/"
    return start + (path or "") + ("" if query is None else f"?{query}|")


def _squidguard_urls(rule: Listed) -> str:
    _, host, path, query, _, _, _ = rule
    return host + ((path or "").rstrip("/") if query is None else f"{path}?{query}")


WRITERS: Final[Mapping[str, Callable[[Listed], str]]] = MappingProxyType(
    {
        "url": _url,
        "domain": lambda rule: rule[1],
        "hosts": lambda rule: f"0.0.0.0 {rule[1]}",
        "csv": _csv,
        "jsonl": _jsonl,
        "rpz": _rpz,
        "adblock": _adblock,
        "squidguard-domains": lambda rule: rule[1],
        "squidguard-urls": _squidguard_urls,
    }
)
