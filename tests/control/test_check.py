from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blocker
from blocker._native import Batch
from blocker.control.routes.check import Check
from blocker.control.schema import BatchAnswer, CheckAnswer
from tests.control.support import problem, raw
from tests.hits.support import BAD, GOOD, SHADOWED, WORSE, small_matcher

if TYPE_CHECKING:
    import io

    import httpx

    from tests.control.conftest import ControlNode

BLOCKED = {
    "verdict": "block", "list": "first", "kind": "exact", "serial": 7, "canonical": BAD, "reference": None,
    "shadow": ["quiet"], "invalid": False,
}  # fmt: skip
ALLOWED: dict[str, object] = {
    "verdict": "allow", "list": None, "kind": None, "serial": None, "canonical": GOOD, "reference": None,
    "shadow": [], "invalid": False,
}  # fmt: skip
INVALID = {**ALLOWED, "canonical": None, "invalid": True}


async def test_one_url(node: ControlNode) -> None:
    for url, expected in ((BAD, BLOCKED), (GOOD, ALLOWED), ("/no url", INVALID), ("", INVALID)):
        answer = await node.client.get("/v1/check", params={"url": url})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == expected
        assert list(answer.json())[:5] == ["verdict", "list", "kind", "serial", "canonical"]


async def test_the_policy_decides(node: ControlNode) -> None:
    for url, policy, verdict in (("/x", "strict", "block"), (WORSE, "hushed", "allow"), (WORSE, "default", "block")):
        answer = await node.client.get("/v1/check", params={"url": url, "policy": policy})
        assert answer.json()["verdict"] == verdict


@pytest.mark.parametrize(
    "raw",
    [
        "http%3A%2F%2Fbad.example%2Fpage",
        "http://bad.example/page",
        "bad.example/page",
        "HTTP://BAD.example:80//page%23x",
    ],
)
async def test_any_spelling_is_decided(node: ControlNode, raw: str) -> None:
    assert (await node.client.get(f"/v1/check?url={raw}")).json()["verdict"] == "block"


async def test_bytes_that_are_no_utf_8_are_decided(node: ControlNode) -> None:
    answer = await node.client.get("/v1/check?url=http%3A%2F%2Fgood.example%2F%ff%c3")
    assert answer.json()["canonical"] == "http://good.example/%FF%C3"


async def test_a_very_long_url_is_decided(node: ControlNode) -> None:
    url = "http://good.example/" + "ä" * 10_000
    query = quote(url, safe="").encode()
    head = b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await raw(node.server.port, b"GET /v1/check?url=" + query + head)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["canonical"] == blocker.canonicalize(url)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "url"), ("?", "url"), ("?policy=default", "url"), ("?url=a.example&url=b.example", "url"),
        ("?url=http://h.example/?a=1&zzmarkzz=2", "query"), ("?URL=a.example", "query"), ("?zzmarkzz", "query"),
        ("?url=a.example&policy=zzmarkzz", "policy"), ("?url=a.example&policy=default&policy=default", "policy"),
        ("?url=a.example&policy=%ff", "policy"),
    ],
)  # fmt: skip
async def test_a_query_that_cannot_be_meant_is_refused(node: ControlNode, query: str, field: str) -> None:
    document = problem(await node.client.get(f"/v1/check{query}"), 422)
    errors = document["errors"]
    assert isinstance(errors, list)
    assert [fault["field"] for fault in errors] == [field]
    assert "zzmarkzz" not in json.dumps(document)


async def test_a_batch_is_answered_in_its_order(node: ControlNode) -> None:
    urls = [BAD, GOOD, "/no url", SHADOWED, "http://bad.example/pardoned"] * 200
    answer = await node.client.post("/v1/check", json={"urls": urls})
    results = answer.json()["results"]
    assert [result["verdict"] for result in results] == ["block", "allow", "allow", "allow", "allow"] * 200
    assert results[:3] == [BLOCKED, ALLOWED, INVALID]
    assert (results[3]["shadow"], results[4]["list"]) == (["quiet"], "pardon")
    BatchAnswer.model_validate_json(answer.content)


async def test_a_batch_is_decided_by_one_matcher(node: ControlNode) -> None:
    """The matcher is swapped between two slices of one batch."""
    answer, new = node.engine.answer, small_matcher().build({"new": [GOOD]})

    def swapping(*args: object, **kwargs: object) -> bytes:
        answers = answer(*args, **kwargs)  # type: ignore[arg-type]
        node.follower.matcher = new
        return answers

    node.engine.answer = swapping  # type: ignore[method-assign]
    results = (await node.client.post("/v1/check", json={"urls": [GOOD] * 999})).json()["results"]
    assert {result["verdict"] for result in results} == {"allow"}
    assert node.follower.matcher is new


async def test_an_empty_batch_is_answered(node: ControlNode) -> None:
    assert (await node.client.post("/v1/check", json={"urls": []})).json() == {"results": []}
    problem(await node.client.post("/v1/check", json={"urls": [], "policy": "none"}), 422)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", ["body"]), (b"zzmarkzz", ["body"]), (b'{"urls": ["zzmarkzz', ["body"]), (b"[]", ["body"]),
        (b"{}", ["urls"]), (b'{"urls": null}', ["urls"]), (b'{"urls": "zzmarkzz"}', ["urls"]),
        (b'{"urls": ["a.example", 5, {"zzmarkzz": 1}]}', ["urls.1", "urls.2"]),
        (b'{"urls": [], "zzmarkzz": 1}', ["body"]), (b'{"urls": [], "policy": 3}', ["policy"]),
        (b'{"urls": ["\\ud800"]}', ["body"]), (b'{"urls": ["\xff"]}', ["body"]),
        (b'{"urls": [], "urls": ["zzmarkzz"]}', ["body"]), (b'{"urls": [], "policy": ""}', ["policy"]),
        (b'{"urls": [], "policy": "zzmarkzz"}', ["policy"]), (b'{"urls": [' + b"1," * 999 + b"1]}", None),
        (b'{"urls": [' + b'"a.example",' * 1000 + b'"a.example"]}', ["urls"]),
    ],
)  # fmt: skip
async def test_a_bad_batch_is_refused_by_field_and_rule(
    node: ControlNode, body: bytes, fields: list[str] | None
) -> None:
    document = problem(await node.client.post("/v1/check", content=body), 422)
    errors = document["errors"]
    assert isinstance(errors, list)
    assert len(errors) <= 10
    assert fields is None or [fault["field"] for fault in errors] == fields
    assert all(fault["rule"] for fault in errors)
    assert "zzmarkzz" not in json.dumps(document)


async def test_another_type_of_body_is_refused(node: ControlNode) -> None:
    problem(await node.client.post("/v1/check", data={"urls": GOOD}), 415)
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await node.client.post("/v1/check", content=b'{"urls":[]}', headers=headers)).status_code == 200


async def test_a_host(node: ControlNode) -> None:
    for host, verdict, canonical in (
        ("bad.example", "inspect", "bad.example"), ("GOOD.example", "allow", "good.example"),
        ("[::1]", "allow", "[::1]"), ("0x7f.1", "allow", "127.0.0.1"),
    ):  # fmt: skip
        answer = await node.client.get(f"/v1/hosts/{host}")
        CheckAnswer.model_validate_json(answer.content)
        assert (answer.json()["verdict"], answer.json()["canonical"]) == (verdict, canonical)
    assert (await node.client.get("/v1/hosts/%20%09")).json() == {**INVALID}
    problem(await node.client.get("/v1/hosts/bad.example?policy=none"), 422)
    problem(await node.client.get("/v1/hosts/bad.example?x=1"), 422)
    problem(await node.client.get("/v1/hosts/a%2Fb"), 404)


async def test_the_framework_answers_like_the_direct_route(node: ControlNode) -> None:
    """Without the shell's direct routes the documented function would be asked."""
    node.app._direct.clear()
    for query in (f"?url={BAD}", f"?url={GOOD}&policy=strict", "?url=%ff", "?x=1", "?url=a.example&policy=none"):
        through = await node.client.get(f"/v1/check{query}")
        assert through.status_code in (200, 422)
        node.app._direct["/v1/check"] = Check(node.engine, 1000).direct
        past = await node.client.get(f"/v1/check{query}")
        node.app._direct.clear()
        _assert_alike(through, past)


async def test_the_framework_answers_a_batch_like_the_direct_route(node: ControlNode) -> None:
    bodies = [{"urls": [BAD, GOOD, "/no url"], "policy": "strict"}, {"urls": 1}, {"urls": [], "policy": "none"}]
    past = [await node.client.post("/v1/check", json=body) for body in bodies]
    past.append(await node.client.post("/v1/check", content=b"x", headers={"content-type": "text/plain"}))
    node.app._posted.clear()
    through = [await node.client.post("/v1/check", json=body) for body in bodies]
    through.append(await node.client.post("/v1/check", content=b"x", headers={"content-type": "text/plain"}))
    assert [answer.status_code for answer in past] == [200, 422, 422, 415]
    for one, other in zip(through, past, strict=True):
        _assert_alike(one, other)


async def test_a_client_that_goes_in_the_middle_of_a_batch_is_no_fault(node: ControlNode, logged: io.StringIO) -> None:
    head = b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    assert await raw(node.server.port, head + b'{"urls": ["zzmarkzz', ends=True) == b""
    assert (await node.client.post("/v1/check", json={"urls": [GOOD]})).status_code == 200
    assert logged.getvalue() == ""


def _assert_alike(one: httpx.Response, other: httpx.Response) -> None:
    for answer in (one, other):
        answer.headers.pop("date")
    assert (one.status_code, one.content, dict(one.headers)) == (other.status_code, other.content, dict(other.headers))


texts = st.one_of(st.text(), st.sampled_from([BAD, GOOD, WORSE, SHADOWED, "", "/x", 'http://h.example/?"\\\u2028']))
MATCHER = small_matcher()


@given(urls=st.lists(texts, max_size=5), policy=st.sampled_from(MATCHER.policies), spaced=st.booleans())
def test_a_batch_tells_of_each_what_its_decision_says(urls: list[str], policy: str, spaced: bool) -> None:
    decisions = MATCHER.decide_many(urls, policy)
    whole = Batch(urls)
    assert len(whole) == len(urls)
    texts, passed, blocks, invalid, _ = whole.answer(MATCHER, policy, frozenset(), 0, len(urls))
    answers = json.loads(b"[%b]" % texts)
    verdicts = [decision.verdict for decision in decisions]
    assert (blocks, passed) == (verdicts.count(blocker.Verdict.BLOCK), verdicts.count(blocker.Verdict.ALLOW))
    assert invalid == sum(decision.invalid for decision in decisions)
    for decision, answer, url in zip(decisions, answers, urls, strict=True):
        model = CheckAnswer.model_validate(answer)
        assert (model.verdict, model.list, model.kind, model.serial) == (
            decision.verdict, decision.list, decision.kind, decision.serial,
        )  # fmt: skip
        assert (model.shadow, model.invalid, model.reference) == (decision.shadow, decision.invalid, None)
        assert model.canonical == (None if decision.invalid else blocker.canonicalize(url))
        assert json.loads(decision.json(model.canonical)) == answer
    if all(url.isprintable() for url in urls):  # the others would not all be JSON in UTF-8
        document = json.dumps({"policy": policy, "urls": urls}, indent=2 if spaced else None, ensure_ascii=spaced)
        read = Batch.read(document.encode())
        assert read.policy == policy
        assert read.answer(MATCHER, policy, frozenset(), 0, len(urls))[0] == texts


def test_parts_of_a_batch_are_the_whole() -> None:
    urls = [BAD, GOOD, "/no url", SHADOWED, "http://bad.example/pardoned"]
    whole = Batch(urls)
    answers = [whole.answer(MATCHER, "default", frozenset(), at, at + 2) for at in (0, 2, 4, 6)]
    together = whole.answer(MATCHER, "default", frozenset(), 0, 5)
    assert b",".join(answer[0] for answer in answers[:3]) == together[0]
    assert answers[3][0] == b""
    counted = [sum(numbers) for numbers in zip(*(answer[1:4] for answer in answers), strict=True)]
    assert counted == list(together[1:4])


def test_a_reference_is_told_as_it_is() -> None:
    reference = 'EX-1"\\é'
    matcher = blocker.Matcher.build({"first": [blocker.Rule.parse("h.example/a", reference=reference)]})
    (answer,) = json.loads(b"[%b]" % Batch(["h.example/a"]).answer(matcher, "default", frozenset(), 0, 1)[0])
    assert (answer["reference"], answer["kind"], answer["canonical"]) == (reference, "exact", "http://h.example/a")
