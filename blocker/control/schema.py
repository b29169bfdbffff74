"""The JSON bodies of the control plane, as models: they read requests and describe answers in the OpenAPI document.

Answers are written without them, because a model costs more than the decision; a test holds both to the same form.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from blocker.rules import Kind, Verdict
from blocker.settings import Mode


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CheckAnswer(_Answer):
    """One decision."""

    verdict: Verdict = Field(description="allow: let it through; inspect: look at the full URL; block: stop it.")
    list: str | None = Field(description="The list that decided, whether it blocks or excepts; null if none did.")
    kind: Kind | None = Field(description="How much the deciding rule covers; null if none decided.")
    serial: int | None = Field(description="Version of that list.")
    canonical: str | None = Field(description="What was looked up: the canonical form; null if the text is invalid.")
    reference: str | None = Field(description="The authority's own number for the entry, if it gave one.")
    shadow: tuple[str, ...] = Field(description="Lists in shadow mode that would have blocked.")
    invalid: bool = Field(description="The text is no URL; the verdict is the policy's `on_invalid`.")


class HostAnswer(CheckAnswer):
    """One decision about a host; `canonical` is the host alone."""


class BatchRequest(BaseModel):
    """Many URLs to decide at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    urls: list[str] = Field(description="What to decide; answered in the same order.")
    policy: str = Field("default", description="Name of a configured policy.")


class BatchAnswer(_Answer):
    """The decisions, in the order of the request; all of them by the same serials."""

    results: list[CheckAnswer]


class ListState(_Answer):
    """One list as this node enforces it."""

    name: str
    action: Literal["block", "allow"]
    mode: Mode = Field(description="The list's own mode; a policy may set another.")
    serial: int = Field(description="The enforced version; +1 at each publish.")
    entries: int = Field(description="Rules in that version.")
    age_seconds: float | None = Field(description="Seconds since the list's source was last found good.")
    stale: bool | None = Field(description="The age is over twice the source's interval and jitter; null if unknown.")


class ListsAnswer(_Answer):
    """The lists of this node."""

    lists: list[ListState]


class ListSerial(_Answer):
    """A list and its enforced version."""

    name: str
    serial: int


class Readiness(_Answer):
    """Whether this node decides, and how fresh its lists are."""

    status: Literal["ready", "degraded"] = Field(description="degraded: it decides, but the store is away.")
    lists: list[ListSerial]
    store_up: bool
    lag_seconds: float
    source: Literal["store", "snapshot", "none"] = Field(description="Where the enforced lists came from.")
    epoch: str | None = Field(description="The store's epoch that they belong to.")
    last_sync: float | None = Field(description="When they were last known to be the newest, in Unix seconds.")
    detail: str = Field(description="What is wrong, for people; empty if nothing is.")


class Liveness(_Answer):
    """The process runs and its event loop turns."""

    status: Literal["alive"]


class Fault(_Answer):
    """One broken rule of a request."""

    field: str
    rule: str


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = Field(None, description="With status 422: what is wrong, field by field.")


# By the model's name. FastAPI would drop every null from an example, so they are put into the document afterwards.
EXAMPLES: dict[str, dict[str, Any]] = {}


def example(model: type[BaseModel], value: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI response with its model and an example, which must fit the model."""
    model.model_validate(value)
    if EXAMPLES.setdefault(model.__name__, value) != value:
        raise ValueError(f"{model.__name__} has another example already; make it a model of its own")
    return {"model": model}
