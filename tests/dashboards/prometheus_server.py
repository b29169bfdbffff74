"""A real Prometheus (Debian's package) on a free port, with history from exporters' texts, asked over its API."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.e2e.processes import spawn, until
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
JOB = "blocker"


class Series(NamedTuple):
    """One series of an answer: labels, and its values with their times."""

    labels: dict[str, str]
    values: list[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1][1]


def dated(text: str, instance: str, moment: float) -> Iterator[str]:
    """An exporter's text as lines of OpenMetrics from a moment, as if it had been scraped then."""
    for line in text.splitlines():
        found = _SAMPLE.match(line)
        if found:
            labels = f'{found[2]},instance="{instance}"' if found[2] else f'instance="{instance}"'
            yield f'{found[1]}{{{labels},job="{JOB}"}} {found[3]} {moment:.3f}\n'


class PrometheusServer:
    """A server; a context.

    Args:
        directory: For its data.
        targets: The addresses to scrape.
        history: Lines of `dated`, in the order of time.
        lookback: How old a sample may be to count; as long as the pauses of the history.
    """

    def __init__(self, directory: Path, targets: list[str], history: Iterator[str], lookback: str = "61m") -> None:
        assert shutil.which("prometheus"), "this test needs prometheus: run tests/install-packages"
        directory.mkdir()
        self._port = free_port()
        self._directory = directory
        scraped = [{"job_name": JOB, "static_configs": [{"targets": targets}]}]
        configuration = {"global": {"scrape_interval": "1s"}, "scrape_configs": scraped}
        (directory / "prometheus.yml").write_text(json.dumps(configuration), "utf-8")  # JSON is YAML
        with (directory / "history.txt").open("w", encoding="utf-8") as out:
            out.writelines(history)
            out.write("# EOF\n")
        subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=744h",
             directory / "history.txt", directory / "data"],
            check=True, capture_output=True,
        )  # fmt: skip
        with (directory / "log").open("wb") as log:
            self._process = spawn(
                ["prometheus", f"--config.file={directory / 'prometheus.yml'}",
                 f"--storage.tsdb.path={directory / 'data'}", "--storage.tsdb.retention.time=90d",
                 f"--web.listen-address=127.0.0.1:{self._port}", f"--query.lookback-delta={lookback}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        until(self._ready)

    def instant(self, query: str, at: float) -> list[Series]:
        """The answer at a moment."""
        data = self._get("query", query=query, time=f"{at:.3f}")
        if data["resultType"] == "scalar":
            return [Series({}, [_point(data["result"])])]
        return [Series(one["metric"], [_point(one["value"])]) for one in data["result"]]

    def range(self, query: str, end: float, seconds: int, step: int) -> list[Series]:
        """The answer over a time, its ends at multiples of the step as Grafana has them."""
        last = end // step * step
        data = self._get(
            "query_range", query=query, start=f"{last - seconds // step * step:.3f}", end=f"{last:.3f}", step=str(step)
        )
        return [Series(one["metric"], [_point(each) for each in one["values"]]) for one in data["result"]]

    def values(self, label: str, metric: str) -> list[str]:
        """`label_values(metric, label)`."""
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": metric})
        return found

    def scrapes(self, targets: int) -> float:
        """The fewest samples of `up` that any target has, all of them up; 0 while one is missing."""
        found = self._get("query", query="sum_over_time(up[1h]) and up == 1")["result"]
        return min((float(one["value"][1]) for one in found), default=0.0) if len(found) == targets else 0.0

    def _get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        body = urllib.parse.urlencode(parameters).encode()
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        if path.startswith("label/"):
            url, body = f"{url}?{body.decode()}", None  # type: ignore[assignment]
        try:
            with urllib.request.urlopen(url, body, timeout=60) as answer:  # noqa: S310 - loopback
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters.get('query')}: {error.read().decode()}") from None

    def _ready(self) -> bool:
        assert self._process.poll() is None, (self._directory / "log").read_text("utf-8")[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=10):
                return True
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)


def _point(pair: tuple[float, str]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def variables(server: PrometheusServer, board: Mapping[str, Any]) -> dict[str, list[str]]:
    """All values of each of a dashboard's variables, as Prometheus has them."""
    found = {}
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            query = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["query"]["query"])
            assert query, one["query"]
            found[one["name"]] = server.values(query[2], query[1])
    return found
