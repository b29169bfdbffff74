"""PromQL that several panels need: selectors by the dashboards' variables, and the hits of a stretch of time."""

from __future__ import annotations

NODE = 'instance=~"$node"'
LIST = 'list=~"$list"'
GATEWAY = 'gateway=~"$gateway"'
HITS = f"blocker_hits_total{{{NODE}, {LIST}}}"
SHADOW_HITS = f"blocker_shadow_hits_total{{{NODE}, {LIST}}}"
WEEK = "7d"


def quantile(share: float, by: str = "", selector: str = f"{NODE}, {GATEWAY}") -> str:
    """A quantile of the time of decisions."""
    labels = "le" if not by else f"le, {by}"
    return (
        f"histogram_quantile({share}, sum by ({labels}) "
        f"(rate(blocker_decision_seconds_bucket{{{selector}}}[$__rate_interval])))"
    )


def grown(counter: str, span: str, ago: str = "") -> str:
    """How much each counter has grown within a span, exactly.

    `increase` estimates between scrapes, which makes fractions of a counter that moves once an hour. Here the present
    value has the first one of the span subtracted: the one at its beginning, or where there was none yet, the first
    seen. A counter that is no more counts up to where it was seen last. Looking once an hour is enough to find that.
    """
    at = f" offset {ago}" if ago else ""
    # What is before the span: as long ago, and the span more.
    before = f" offset {_added(ago, span)}" if ago else f" offset {span}"
    last = f"({counter}{at} or max_over_time({counter}[{span}:1h]{at}))"
    first = f"({counter}{before} or min_over_time({counter}[{span}:1h]{at}))"
    return f"({last} - {first})"


def days_in_order(query: str) -> str:
    """A query by weekday with the label `day`, whose alphabetical order is that of the week."""
    for number, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), start=1):
        query = f'label_replace({query}, "day", "{number} {day}", "weekday", "{day}")'
    return query


def share_of_all(query: str, by: str) -> str:
    """The shares of a query's sum by a label; nothing while there is no hit."""
    return f"sum by ({by}) ({query}) / scalar(sum({query}) > 0)"


def _added(one: str, other: str) -> str:
    """Two spans of whole days together."""
    return f"{int(one.removesuffix('d')) + int(other.removesuffix('d'))}d"
