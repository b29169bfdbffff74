"""What the console's pages say and do: approvals, what is escaped, what is kept, and the store being away."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from blocker.control.console import console, gate
from blocker.ingest.drafts import put_draft
from blocker.ingest.formats import FormatOptions, find_format
from blocker.ingest.plan import PublishOptions
from blocker.store.audit import Actor
from blocker.store.beat import Beat
from blocker.store.token import Role
from tests.control.console_client import Browser
from tests.control.console_scene import ANNA, KEYRING, LISTED, Scene
from tests.control.test_pages import Page
from tests.ingest.checks import assert_whole

if TYPE_CHECKING:
    import io

    import httpx
    import pytest

PATHS = ("/", "/console/proposals", "/console/changes", "/console/hits", "/console/explain", "/console/login")
PROPOSALS = "/console/proposals"
MANY = [f"http://site{number}.example/x" for number in range(2000)]
FEW = ["http://one.example/a"]
MARK = "zqmarkqz"


# --- headers ----------------------------------------------------------------------------------------------------------


async def test_every_page_lets_nothing_be_loaded_framed_kept_or_run(full: Scene) -> None:
    async with Browser(full) as browser:
        answers = [await browser.sign_in("wrong")]
        answers.append(await browser.sign_in(await full.token("olof", Role.OPERATOR)))
        answers += [await browser.get(path) for path in PATHS]
        answers.append(await browser.submit("/console/explain", url=LISTED))
        answers.append(await browser.submit("/console/explain", url="http://["))
        answers.append(await browser.submit(f"{PROPOSALS}/none/reject"))
    assert [answer.status_code for answer in answers] == [401, 303, *[200] * len(PATHS), 200, 422, 404]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        if answer.status_code == 303:
            continue
        assert "form-action 'self'" in policy
        assert re.findall(r"(\S+-src) ([^;]+)", policy)[1:] == [
            ("style-src", re.findall(r"style-src ([^;]+)", policy)[0]), ("img-src", "data:")
        ]  # fmt: skip
        page = Page(answer.text)
        assert not {"script", "img", "iframe", "object", "base", "svg", "link"} & set(page.tags) - {"link"}
        assert not [name for _, name, _ in page.attributes if name in ("src", "style") or name.startswith("on")]
        assert {value for tag, name, value in page.attributes if (tag, name) == ("form", "method")} <= {"post"}


# --- approvals --------------------------------------------------------------------------------------------------------


async def test_an_approval_changes_the_list_and_a_rejection_does_not(scene: Scene) -> None:
    await scene.publish("mine", MANY)
    assert await scene.publish("mine", FEW, base=1, reason="half a file") == "waiting"
    assert scene.follower.matcher is not None
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("bert", Role.APPROVER))
        page = (await browser.get(PROPOSALS)).text
        assert "2000 rules become 1" in page
        assert "half a file" in page
        proposal = (await scene.store.drafts("proposals"))["mine"].id
        wish = {"proposal": proposal, "serial": "1", "read": "yes"}
        for spoilt, status in (
            ({"read": ""}, 422), ({"serial": "x"}, 422), ({"serial": "2"}, 409), ({"proposal": "0" * 16}, 409),
        ):  # fmt: skip
            answer = await browser.submit(f"{PROPOSALS}/mine/approve", **{**wish, **spoilt})
            assert answer.status_code == status, spoilt
        assert (await browser.submit(f"{PROPOSALS}/Bad%20Name/approve", **wish)).status_code == 404
        assert (await scene.store.heads())["mine"].serial == 1
        done = await browser.submit(f"{PROPOSALS}/mine/approve", **wish)
        assert (done.status_code, done.headers["location"]) == (303, PROPOSALS)
        assert "mine is at serial 2 with 1 rule." in (await browser.get(PROPOSALS)).text
        assert "is at serial 2" not in (await browser.get(PROPOSALS)).text, "it is said once"
        await scene.follower.sync(scene.store)
        assert scene.follower.matcher.decide(FEW[0]).verdict == "block"
        assert scene.follower.matcher.decide(MANY[0]).verdict == "allow"
        assert len(await assert_whole(scene.store, KEYRING, "mine")) == 1
        record = (await scene.store.newest_audit_records(1))[0].fields
        assert (record["action"], record["actor"], record["person"]) == ("approve", "token:bert", "bert")

        assert await scene.publish("mine", MANY, base=2) == "waiting"
        proposal = (await scene.store.drafts("proposals"))["mine"].id
        bad = await browser.submit(f"{PROPOSALS}/mine/reject", proposal=proposal, reason="see http://one.example/")
        assert bad.status_code == 422
        await browser.submit(f"{PROPOSALS}/mine/reject", proposal=proposal, reason="not what was agreed")
        assert "The proposal for mine is rejected" in (await browser.get(PROPOSALS)).text
        record = (await scene.store.newest_audit_records(1))[0].fields
        assert (record["action"], record["reason"]) == ("reject", "not what was agreed")
        assert (await scene.store.heads())["mine"].serial == 2
        assert (await browser.submit(f"{PROPOSALS}/mine/reject", proposal=proposal, reason="")).status_code == 404


async def test_nobody_approves_what_they_proposed_themselves(scene: Scene) -> None:
    await scene.publish("mine", MANY)
    await scene.publish("mine", FEW, base=1)
    proposal = (await scene.store.drafts("proposals"))["mine"].id
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("annas-other", Role.OPERATOR, person=ANNA.person))
        page = (await browser.get(PROPOSALS)).text
        assert "another person must approve it" in page
        assert "Approve and publish" not in page
        answer = await browser.submit(f"{PROPOSALS}/mine/approve", proposal=proposal, serial="1", read="yes")
        assert answer.status_code == 409
        assert "a second person must approve it" in answer.text
    assert (await scene.store.heads())["mine"].serial == 1


async def test_a_proposal_that_time_has_passed_cannot_be_approved(scene: Scene) -> None:
    await scene.publish("mine", MANY)
    await scene.publish("mine", FEW, base=1)
    assert await scene.publish("mine", MANY[:-1], base=1) == "published"
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("bert", Role.APPROVER))
        page = (await browser.get(PROPOSALS)).text
    assert "The list is at serial 2 by now" in page
    assert "Approve and publish" not in page
    assert "Reject mine" in page


# --- what is shown ----------------------------------------------------------------------------------------------------


async def test_whatever_somebody_wrote_is_text(scene: Scene) -> None:
    mark = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
    evil = Actor(f"token:{mark}", mark)
    line = json.dumps({"url": "http://one.example/a", "reference": "<img/src=x>\"'&", "category": mark})
    await scene.publish("mine", MANY, actor=evil, reason=mark)
    await scene.publish("mine", FEW, base=1, actor=evil, reason=mark)
    await _publish_entry(scene, "other", line, evil, mark)
    detail = {"last_status": "refused", "last_detail": mark, "last_at": "5"}
    await scene.store.set_source_state("mine", detail)
    await scene.store.set_source_state("other", {**detail, "last_status": "failed"})
    await scene.store.beat(
        Beat(node="n", version=mark, started=5.0, serials={mark: 1}, lag_seconds=0, canaries_failed=0)
    )
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("bert", Role.OPERATOR, person=mark))
        answers = [await browser.get(path) for path in PATHS[:-1]]
        answers.append(await browser.submit("/console/explain", url="http://one.example/a"))
        answers.append(await browser.submit("/console/explain", url=f"http://one.example/{mark}"))
        answers.append(await browser.submit("/console/explain", url=f"http://[{mark}"))
    for answer in answers:
        page = Page(answer.text)
        assert "img" not in page.tags
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert "<img" not in answer.text
        assert mark in page.text, "as the person's name at least"
    assert answers[-3].text.count("&lt;img") >= 4, "person, author, reference and reason"
    assert answers[-1].status_code == 422
    assert ("input", "value", f"http://[{mark}") in Page(answers[-1].text).attributes, "in the box, as it was sent"


async def _publish_entry(scene: Scene, name: str, line: str, actor: Actor, reason: str) -> None:
    parser = find_format("jsonl").parser(FormatOptions())
    parser.feed(line.encode() + b"\n")
    await put_draft(
        scene.store, KEYRING, name, PublishOptions(), parser.finish(), base=0, actor=actor, reason=reason,
        now=scene.clock(),
    )  # fmt: skip
    desk = await scene.office.desk()
    await desk.publish_draft(name, expected=0, actor=actor, reason=reason, now=scene.clock())
    await scene.follower.sync(scene.store)


async def test_the_overview_says_what_is_wrong_with_what(full: Scene) -> None:
    async with Browser(full) as browser:
        await browser.sign_in(await full.token("vera", Role.VIEWER))
        page = Page((await browser.get("/")).text)
    text = " ".join(page.text.split())
    for told in (
        "icap: not blocked", "failing lists.police.example:443", "stale", "bpjm not published yet",
        "waiting for approval 0 added, 2 179 removed", "behind iwf 1 of 2", "silent for 21 min",
        "sto-proxy-1 this one",
    ):  # fmt: skip
        assert told in text, told
    links = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href") and value}
    anchors = {value for _, name, value in page.attributes if name == "id"}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert "/console/proposals#proposal-interpol" in links


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_a_tested_address_leaves_nothing_behind(
    full: Scene, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"http://{MARK}:{MARK}@listed.example/gallery/{MARK}?{MARK}#{MARK}"
    answers: list[httpx.Response] = []
    async with Browser(full) as browser:
        await browser.sign_in(f"blk_{MARK}")
        await browser.sign_in(await full.token("olof", Role.OPERATOR))
        found = await browser.submit("/console/explain", url=url, policy="default")
        assert MARK in found.text
        assert MARK not in str(found.headers) + re.findall(r"<title>.*</title>", found.text)[0]
        assert 'action="/console/explain"' in found.text
        broken = await browser.submit("/console/explain", url=f"http://[{MARK}")
        assert broken.text.count(MARK) == 1, "in the box alone, to whom it is said"
        key = await browser.form_key()
        for fields in (
            {"url": url, "policy": MARK}, {"url": url, MARK: MARK}, {"form_key": MARK, "url": url},
            {"url": MARK * 40_000},
        ):  # fmt: skip
            answers.append(await browser.send("/console/explain", {"form_key": key, **fields}))
        answers.append(await browser.submit(f"{PROPOSALS}/{MARK}/approve", proposal=MARK, serial=MARK, read="yes"))
        answers.append(await browser.submit(f"{PROPOSALS}/mine/reject", proposal=MARK, reason=f"see {MARK}.example"))
        answers.append(
            await browser.send(
                "/console/explain", {"form_key": key, "url": url}, sec_fetch_site="", origin=f"http://{MARK}"
            )
        )
        answers.append(await browser.send("/console/explain", {"url": url}, cookie=f"blocker={MARK}"))
        answers.append(await browser.get(f"/console/explain?url={MARK}"))
        answers.append(await browser.get(f"/console/{MARK}"))
        told = (await browser.get("/metrics")).text
    assert await full.hits.flush()
    assert [answer.status_code for answer in answers] == [422, 422, 403, 413, 422, 422, 403, 303, 200, 404]
    for answer in answers:
        assert MARK not in str(answer.headers)
        if answer is not answers[0]:  # a policy that is unknown: the address is in the box again
            assert MARK not in answer.text
    left = [path.read_bytes() for path in full.redis.directory.parent.rglob("*") if path.is_file()]
    assert left
    assert not any(MARK.encode() in data for data in left)
    assert MARK not in told + logged.getvalue() + "".join(capfd.readouterr())
    assert logged.getvalue()


# --- the store is away ------------------------------------------------------------------------------------------------


async def test_without_the_store_it_shows_what_the_node_knows(full: Scene) -> None:
    async with Browser(full) as browser, Browser(full) as late:
        token = await full.token("olof", Role.OPERATOR)
        await browser.sign_in(token)
        key = await browser.form_key()
        proposal = (await full.store.drafts("proposals"))["interpol"].id
        await full.redis.astop()
        for path in PATHS[:-1]:
            answer = await browser.get(path)
            assert answer.status_code == 200, path
            assert "The store is away." in answer.text, path
        home = " ".join(Page((await browser.get("/")).text).text.split())
        assert "icap: not blocked" in home
        assert "5 972" in home
        assert "Other nodes are only known while the store is there." in home
        assert "in all, most on" in (await browser.get("/console/hits")).text
        wish = {"form_key": key, "proposal": proposal, "serial": "1", "read": "yes"}
        refused = await browser.send(f"{PROPOSALS}/interpol/approve", wish)
        assert (refused.status_code, refused.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert (await browser.send("/console/explain", {"form_key": key, "url": LISTED})).status_code == 503
        assert (await late.sign_in(token)).status_code == 503
        full.clock.now += 1801
        assert (await browser.get("/")).headers["location"] == "/console/login", "by the clock it ends all the same"
        await full.redis.astart()
        assert (await late.sign_in(token)).status_code == 303
        assert "The store is away." not in (await late.get("/")).text


async def test_a_store_that_says_nothing_is_not_waited_for_long(full: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Browser(full) as browser:
        await browser.sign_in(await full.token("olof", Role.OPERATOR))
        full.redis.pause()
        try:
            with monkeypatch.context() as patch:
                for module in (gate, console):
                    patch.setattr(module, "PATIENCE_SECONDS", 2.0)
                async with asyncio.timeout(30):  # the store's own patience, with repeats, is a quarter of a minute each
                    for path in PATHS[:-1]:
                        assert "The store is away." in (await browser.get(path)).text
        finally:
            full.redis.resume()
        assert "The store is away." not in (await browser.get("/")).text


async def test_signing_out_needs_no_store(full: Scene) -> None:
    async with Browser(full) as browser:
        await browser.sign_in(await full.token("olof", Role.OPERATOR))
        key = await browser.form_key()
        await full.redis.astop()
        assert (await browser.send("/console/logout", {"form_key": key})).status_code == 303
        assert (await browser.get("/")).headers["location"] == "/console/login"


async def test_a_node_that_decides_nothing_yet_says_so(scene: Scene) -> None:
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("olof", Role.OPERATOR))
        assert "decides nothing yet" in (await browser.get("/")).text
        assert "they come with the store" in (await browser.get("/console/hits")).text
        for path in PATHS:
            assert (await browser.get(path)).status_code == 200
        assert (await browser.submit("/console/explain", url=LISTED)).status_code == 503
