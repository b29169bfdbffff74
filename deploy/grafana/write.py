"""Writes the dashboards' JSON: `python -m deploy.grafana.write`, or `make dashboards`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploy.grafana.board import as_json
from deploy.grafana.hits import hits
from deploy.grafana.lists import lists
from deploy.grafana.operations import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grafana_foundation_sdk.builders.dashboard import Dashboard

DIRECTORY = Path(__file__).parent / "provisioning" / "dashboards" / "blocker"
DASHBOARDS: Mapping[str, Callable[[], Dashboard]] = {"operations": operations, "hits": hits, "lists": lists}


def main() -> None:
    """Write all."""
    for name, make in DASHBOARDS.items():
        (DIRECTORY / f"{name}.json").write_text(as_json(make()), "utf-8")


if __name__ == "__main__":
    main()
