"""What `blocker doctor` says of the gateways: whether the resolvers answer that the `dns` gateway forwards to.

They are asked from here and now, as the node asks them, whether it runs or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from blocker.cli.doctor_feeds import Finding
from blocker.gateways.upstream_watch import UpstreamWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocker.cli.context import Context


def upstreams(run: Context) -> Iterator[Finding]:
    """The findings about upstreams; none if nothing is forwarded."""
    settings = run.settings.gateways.dns
    if not settings.enabled or not settings.upstreams:
        return
    watch = UpstreamWatch(lambda: settings)
    run.run(watch.look())
    # One that is down is an outage where there is no other.
    bad: Literal["warn", "fail"] = (
        "warn" if any(state.last == "answered" for state in watch.states.values()) else "fail"
    )
    for text, state in watch.states.items():
        what = f"upstream {text}"
        if state.last == "answered" and state.seconds is not None:
            yield Finding(what, "ok", f"answers in {state.seconds * 1000:.0f} ms")
        elif state.last == "failed":
            yield Finding(
                what, bad, "says that it cannot answer: does it let this machine ask, and reach the Internet? If it "
                "knows no root, set gateways.dns.upstream_probe to a name that it knows",
            )  # fmt: skip
        else:
            seconds = settings.upstream_seconds
            yield Finding(what, bad, f"says nothing within {seconds:g} s: is it there, and may this machine reach it?")
