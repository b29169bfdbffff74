"""Examples of what list maintainers send and get, for the OpenAPI document; each must fit its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocker.control import schema
from blocker.control.schema import example

if TYPE_CHECKING:
    from pydantic import BaseModel

_FINDING = {
    "guard": "shrink",
    "severity": "approve",
    "message": "shrink: 6012 rules become 100; max_shrink is 0.3",
    "count": 5912,
}
_DRAFT: dict[str, Any] = {
    "id": "5f0c5f0c5f0c5f0c", "list": "example-list", "base": 7, "action": "block", "mode": "enforce",
    "path_case": "sensitive", "www_alias": False, "entries": 6013, "added": 2, "removed": 1,
    "rules_digest": "0" * 64, "created": 1790000000.0, "author": "token:anna", "person": "Anna", "reason": "monthly",
    "state": "open", "findings": [], "lines": 6020, "bad": 1, "errors": [[17, "host is empty"]],
}  # fmt: skip
_OUTCOME: dict[str, Any] = {
    "list": "example-list", "status": "waiting", "serial": 7, "entries": 100, "added": 0, "removed": 5912, "digest": "",
    "proposal": "5f0c5f0c5f0c5f0c", "findings": [_FINDING], "dry_run": False,
}  # fmt: skip
_SERIAL: dict[str, Any] = {
    "serial": 7, "action": "block", "mode": "enforce", "path_case": "sensitive", "www_alias": False, "entries": 6012,
    "added": 12, "removed": 3, "digest": "0" * 64, "created": 1790000000.0, "reason": "pull", "retired": False,
}  # fmt: skip
_RECORD: dict[str, Any] = {
    "seq": 9, "prev": "0" * 64, "epoch": "0" * 32, "at": 1790000000.0, "action": "publish", "actor": "token:anna",
    "person": "Anna", "list": "example-list", "serial": 8, "reason": "monthly", "facts": {"added": 2, "removed": 1},
    "hash": "0" * 64,
}  # fmt: skip
_EXPLANATION: dict[str, Any] = {
    "canonical": "http://listed.example/gallery/1.jpg", "surt": "example,listed,)/gallery/1.jpg", "policy": "default",
    "verdict": "block", "shadow": [],
    "steps": [
        {"prefix": "example,", "found": True, "matches": []},
        {"prefix": "example,listed,", "found": True, "matches": []},
        {
            "prefix": "example,listed,)/gallery", "found": True,
            "matches": [
                {
                    "list": "example-list", "action": "block", "mode": "enforce", "kind": "prefix", "serial": 7,
                    "reference": "EX-1", "hashed": False,
                }
            ],
        },
    ],
    "rules": [
        {
            "list": "example-list", "action": "block", "mode": "enforce", "serial": 7, "kind": "prefix",
            "part": "decides", "reference": "EX-1", "text": "http://listed.example/gallery/", "hashed": False,
            "metadata": {"category": "A"},
            "since": {"serial": 3, "at": 1790000000.0, "reason": "pull", "exact": True},
        }
    ],
    "proposed": [
        {
            "list": "example-list", "shelf": "draft", "id": "5f0c5f0c5f0c5f0c", "author": "token:anna",
            "verdict": "allow", "by": None, "changes": True, "added": [],
            "removed": ["http://listed.example/gallery/"],
        }
    ],
    "missing": [],
}  # fmt: skip
_VALUES: dict[type[BaseModel], dict[str, Any]] = {
    schema.ChangeRequest: {"add": ["http://listed.example/new/"], "remove": ["http://listed.example/old/"]},
    schema.PublishRequest: {"reason": "monthly", "mode": None, "dry_run": False},
    schema.ApproveRequest: {"proposal": "5f0c5f0c5f0c5f0c", "reason": "looked at"},
    schema.RejectRequest: {"proposal": "5f0c5f0c5f0c5f0c", "reason": "a fault at the source"},
    schema.RollbackRequest: {"serial": 6, "reason": "half a file"},
    schema.DraftAnswer: _DRAFT,
    schema.OutcomeAnswer: _OUTCOME,
    schema.RollbackAnswer: {
        "list": "example-list", "serial": 8, "entries": 6012, "added": 1, "removed": 2, "digest": "0" * 64,
        "unchanged": False,
    },
    schema.LogAnswer: {"list": "example-list", "serials": [_SERIAL]},
    schema.ProposalsAnswer: {"proposals": [{**_DRAFT, "state": "waiting", "findings": [_FINDING]}]},
    schema.AuditAnswer: {"records": [_RECORD]},
    schema.ExplainRequest: {"url": "http://listed.example/gallery/1.jpg", "policy": "default"},
    schema.ExplainAnswer: _EXPLANATION,
    schema.WhoAnswer: {"name": "anna", "person": "Anna", "roles": ["maintainer"], "lists": ["example-list"]},
}  # fmt: skip


def register() -> None:
    """Make them known to whoever completes the document."""
    for model, value in _VALUES.items():
        example(model, value)
