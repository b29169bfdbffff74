"""Names and schema of everything Blocker keeps in Redis.

Every key of a deployment begins with one hash tag, `{blocker:<deployment>}`, so that all of them lie in one slot:
that is what lets a script touch several of them on Redis Cluster. Several deployments may share a server; one never
reads another's keys. After the tag:

| key                        | type   | holds                                                                   |
|----------------------------|--------|-------------------------------------------------------------------------|
| `:meta`                    | hash   | `schema` (SCHEMA_VERSION), `epoch` (random hex, names this life of the  |
|                            |        | store), `lookup`, `seal` (fingerprints of the deployment's keys)        |
| `:heads`                   | hash   | list → JSON `{"serial", "digest"}` of its newest manifest               |
| `:manifest:<list>:<serial>`| string | the manifest, JSON (see manifest.py); never changed once written        |
| `:segment:<sha256>`        | string | a segment: bytes of the native core, opaque here                        |
| `:sealed:<sha256>`         | string | sealed clear text (see sealing.py), opaque here                         |
| `:blobs`                   | zset   | `segment:<sha256>` or `sealed:<sha256>` → unix time at which it was     |
|                            |        | last uploaded or committed, by the server's clock                       |
| `:audit`                   | stream | `record` (JSON), `hash` of every change, chained (see audit.py)         |
| `:audit:head`              | hash   | `seq`, `hash` of the newest of them                                     |
| `:drafts`                  | hash   | list → JSON of the version that is being prepared (see draft.py)        |
| `:proposals`               | hash   | list → JSON of the version that waits for approval, or was rejected     |
| `:tokens`                  | hash   | id → JSON of a bearer token; of its secret only the SHA-256             |
| `:tokens:used`             | hash   | id → unix time of its last use, to the hour                             |
| `:idempotency:<sha256>`    | string | the answer to a change that had an Idempotency-Key, for a day           |
| `:commits`                 | stream | `epoch`, `list`, `serial`, `digest` of each commit; a wake-up hint,     |
|                            |        | trimmed to about COMMITS_KEPT                                           |
| `:zone:<zone>`             | hash   | of a response policy zone's newest version: keyed digest, `serial` of   |
|                            |        | its SOA, `rank` of the lists that it was made from; `given`, the last   |
|                            |        | serials with the beginnings of their digests                            |
| `:checked`                 | hash   | list → unix time of the last successful look at its source              |
| `:source:<list>`           | hash   | what ingest remembers of a source (ETag, last result); a fault may name |
|                            |        | the host that the list is fetched from, nothing more of its address     |
| `:hits:<node>`             | hash   | hit cell → count since ever; the cells' names are opaque here           |
| `:hits:<node>:seq`         | hash   | boot → `<rank>:<sequence>`: the last flush of each boot that was        |
|                            |        | counted; ranks order the boots, so that only the newest are kept        |
| `:hits:<node>:folded`      | hash   | hit cell without its week → released figure of the weeks that are too   |
|                            |        | old to be kept                                                          |
| `:nodes`                   | set    | the nodes that have flushed hits                                        |
| `:beats`                   | zset   | node → unix time of its last heartbeat, by the server's clock; for an   |
|                            |        | hour, as what follows                                                   |
| `:beat:<node>`             | string | JSON of what a node said of itself then (see beat.py); no address       |
| `:releases`                | hash   | weeks and lists of a published report → its figures, JSON; never        |
|                            |        | changed once written                                                    |

No key, field or value holds an URL, a listed host or a path in clear, or anything about a user. No times are kept
beside hits.
List and node names must match settings.NAME_PATTERN, which has no colon: so no two keys can collide.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from blocker.errors import StoreError

if TYPE_CHECKING:
    from blocker.store.draft import Draft
    from blocker.store.manifest import Manifest

SCHEMA_VERSION = 1
# A follower that slept through this many commits reads the heads anyway; ten thousand are months of updates.
COMMITS_KEPT = 10_000

BlobKind = Literal["segment", "sealed"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Keys:
    """The Redis keys of one deployment.

    Raises:
        StoreError: The deployment's name, or a list, node or blob name given to a method, is malformed.
    """

    __slots__ = (
        "_tag", "audit", "audit_head", "beats", "blobs", "checked", "commits", "drafts", "heads", "meta", "nodes",
        "proposals", "releases", "tokens", "tokens_used",
    )  # fmt: skip

    def __init__(self, deployment: str) -> None:
        self._tag = f"{{blocker:{checked_name('deployment', deployment)}}}"
        self.meta = f"{self._tag}:meta"
        self.heads = f"{self._tag}:heads"
        self.blobs = f"{self._tag}:blobs"
        self.commits = f"{self._tag}:commits"
        self.audit = f"{self._tag}:audit"
        self.audit_head = f"{self._tag}:audit:head"
        self.drafts = f"{self._tag}:drafts"
        self.proposals = f"{self._tag}:proposals"
        self.tokens = f"{self._tag}:tokens"
        self.tokens_used = f"{self._tag}:tokens:used"
        self.checked = f"{self._tag}:checked"
        self.nodes = f"{self._tag}:nodes"
        self.beats = f"{self._tag}:beats"
        self.releases = f"{self._tag}:releases"

    def manifest(self, list: str, serial: int) -> str:  # noqa: A002 - the project's word
        """Key of one manifest."""
        return f"{self._tag}:manifest:{checked_name('list', list)}:{serial:d}"

    def blob(self, kind: BlobKind, name: str) -> str:
        """Key of a segment or of a sealed text, by its SHA-256 in hex."""
        return f"{self._tag}:{self.blob_member(kind, name)}"

    @staticmethod
    def blob_member(kind: BlobKind, name: str) -> str:
        """Name of a blob inside `blobs`."""
        if kind not in ("segment", "sealed") or not _SHA256.fullmatch(name):
            raise StoreError("a blob is named segment or sealed and a SHA-256 in lower-case hex")
        return f"{kind}:{name}"

    @classmethod
    def members(cls, version: Manifest | Draft) -> list[str]:
        """Names inside `blobs` of every blob of a manifest or draft."""
        segments = [cls.blob_member("segment", name) for name in version.segments]
        return segments + [cls.blob_member("sealed", name) for name in version.sealed]

    def member_key(self, member: str) -> str:
        """Key of the blob that `blobs` calls `member`."""
        return f"{self._tag}:{member}"

    def idempotency(self, name: str) -> str:
        """Key of a kept answer; `name` is a SHA-256 in hex."""
        if not _SHA256.fullmatch(name):
            raise StoreError("a kept answer is named by a SHA-256 in lower-case hex")
        return f"{self._tag}:idempotency:{name}"

    def source(self, list: str) -> str:  # noqa: A002 - the project's word
        """Key of a source's state."""
        return f"{self._tag}:source:{checked_name('list', list)}"

    def zone(self, name: str) -> str:
        """Key of what is noted of a zone's newest version."""
        return f"{self._tag}:zone:{checked_name('zone', name)}"

    def hits(self, node: str) -> str:
        """Key of a node's hit cells."""
        return f"{self._tag}:hits:{checked_name('node', node)}"

    def beat(self, node: str) -> str:
        """Key of what a node said of itself last."""
        return f"{self._tag}:beat:{checked_name('node', node)}"

    def hits_sequence(self, node: str) -> str:
        """Key of a node's flush numbers."""
        return f"{self.hits(node)}:seq"

    def hits_folded(self, node: str) -> str:
        """Key of what is left of a node's cells that were too old to be kept."""
        return f"{self.hits(node)}:folded"


def checked_name(what: str, name: str) -> str:
    """The name itself if it may stand in a key.

    Raises:
        StoreError: It does not match settings.NAME_PATTERN; the message names `what`, not the text.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"a {what} name must be 1 to 63 of a-z, 0-9, - and _, and begin with a letter or digit")
    return name
