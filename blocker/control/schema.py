"""The JSON bodies of the control plane, as models: they read requests and describe answers in the OpenAPI document.

Answers are written without them, because a model costs more than the decision; a test holds both to the same form.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from blocker.rules import Kind, Verdict
from blocker.sections import Mode


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


class Entry(BaseModel):
    """One rule with what the authority says of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str = Field(description="As a line of the url format.")
    reference: str | None = Field(None, description="The authority's own number for it.")
    category: str | None = None
    added: str | None = Field(None, description="Day, ISO 8601.")
    expires: str | None = Field(None, description="First day on which it holds no longer, ISO 8601.")


class ChangeRequest(BaseModel):
    """Rules to add and to take out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    add: list[str | Entry] = Field(default_factory=list, description="Rules to add, or to give other metadata.")
    remove: list[str | Entry] = Field(default_factory=list, description="Rules to take out; each must be there.")
    reason: str = Field("", max_length=200, description="Why. No address and no host name.")


class PublishRequest(BaseModel):
    """How to publish a draft."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str = Field("", max_length=200, description="Why, for the list's log. No address and no host name.")
    mode: Literal["enforce", "shadow"] | None = Field(None, description="For this serial; null: the draft's.")
    dry_run: bool = Field(False, description="Only say what would happen.")


class ApproveRequest(BaseModel):
    """Which proposal is approved."""

    model_config = ConfigDict(extra="forbid", strict=True)

    proposal: str = Field(max_length=64, description="Its id, as it was shown.")
    reason: str = Field("", max_length=200)


class RejectRequest(ApproveRequest):
    """Which proposal is rejected."""


class RollbackRequest(BaseModel):
    """Where to go back to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    serial: int = Field(ge=1, le=2**53 - 1, description="A serial that is still kept.")
    reason: str = Field("", max_length=200)


class FindingAnswer(_Answer):
    """What one guard says."""

    guard: str
    severity: Literal["refuse", "approve", "note"]
    message: str = Field(description="Counts and settings; never a rule.")
    count: int


class DraftAnswer(_Answer):
    """A draft or proposal; never a rule of it."""

    id: str
    list: str
    base: int = Field(description="The serial it was made from.")
    action: Literal["block", "allow"]
    mode: Mode
    path_case: Literal["sensitive", "insensitive"]
    www_alias: bool
    entries: int
    added: int
    removed: int
    rules_digest: str
    created: float
    author: str
    person: str
    reason: str
    state: Literal["open", "waiting", "rejected"]
    findings: tuple[FindingAnswer, ...]
    lines: int | None = Field(None, description="Lines read, of a list that was pushed whole.")
    bad: int | None = Field(None, description="Lines that are no entry.")
    errors: tuple[tuple[int, str], ...] | None = Field(None, description="The first bad lines: number and reason.")


class OutcomeAnswer(_Answer):
    """What became of a version."""

    list: str
    status: Literal["published", "unchanged", "waiting", "refused"]
    serial: int
    entries: int
    added: int
    removed: int
    digest: str
    proposal: str
    findings: tuple[FindingAnswer, ...]
    dry_run: bool


class RollbackAnswer(_Answer):
    """What the list is now."""

    list: str
    serial: int
    entries: int
    added: int
    removed: int
    digest: str
    unchanged: bool


class SerialAnswer(_Answer):
    """One serial of a list."""

    serial: int
    action: Literal["block", "allow"]
    mode: Mode
    path_case: Literal["sensitive", "insensitive"]
    www_alias: bool
    entries: int
    added: int
    removed: int
    digest: str
    created: float
    reason: str
    retired: bool


class LogAnswer(_Answer):
    """The serials of a list, newest first."""

    list: str
    serials: tuple[SerialAnswer, ...]


class ProposalsAnswer(_Answer):
    """What waits."""

    proposals: tuple[DraftAnswer, ...]


class AuditAnswer(_Answer):
    """Records of the audit chain, newest first."""

    records: tuple[dict[str, Any], ...]


class WhoAnswer(_Answer):
    """Whose token it is."""

    name: str
    person: str
    roles: tuple[str, ...]
    lists: tuple[str, ...]


class ExplainRequest(BaseModel):
    """What is to be explained."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str = Field(description="The address.")
    policy: str = Field("default", description="Name of a configured policy.")


class SinceAnswer(_Answer):
    """Since when a rule is in its list."""

    serial: int
    at: float = Field(description="When that serial was published, in Unix seconds.")
    reason: str
    exact: bool = Field(description="False: older serials are not kept, and it may have been there before.")


class StepMatch(_Answer):
    """Rules of one list that end at a node."""

    list: str
    action: Literal["block", "allow"]
    mode: Mode
    kind: Kind
    serial: int
    reference: str | None
    hashed: bool = False


class StepAnswer(_Answer):
    """One node that was looked up."""

    prefix: str
    found: bool
    matches: tuple[StepMatch, ...]


class RuleAnswer(_Answer):
    """A rule that matches."""

    list: str
    action: Literal["block", "allow"]
    mode: Mode
    serial: int
    kind: Kind = Field(description="As it counts here.")
    part: Literal["decides", "overruled", "shadow"]
    reference: str | None
    text: str | None = Field(description="As a line of the url format; null where this node may not see it.")
    hashed: bool = Field(description="The list knows it as digests only.")
    metadata: dict[str, Any]
    since: SinceAnswer | None


class EffectAnswer(_Answer):
    """What a draft or proposal would do by itself."""

    list: str
    shelf: Literal["draft", "proposal"]
    id: str
    author: str
    verdict: Verdict
    by: str | None = Field(description="The list that would decide.")
    changes: bool = Field(description="Whether verdict or deciding list would be others.")
    added: tuple[str, ...] = Field(description="Rules that would match.")
    removed: tuple[str, ...] = Field(description="Rules that would match no longer.")


class ExplainAnswer(_Answer):
    """Why an address is decided as it is."""

    canonical: str
    surt: str
    policy: str
    verdict: Verdict
    shadow: tuple[str, ...] = Field(description="Shadow lists that would block.")
    steps: tuple[StepAnswer, ...] = Field(description="Nodes looked up, in order.")
    rules: tuple[RuleAnswer, ...] = Field(description="Rules that match, first the one that counts most.")
    proposed: tuple[EffectAnswer, ...] = Field(description="What is about to change.")
    missing: tuple[str, ...] = Field(description="What could not be looked at, and why.")
