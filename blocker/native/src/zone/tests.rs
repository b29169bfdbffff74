use super::names::STAR;
use super::*;
use crate::rule::{Kind, Rule};
use crate::ruleset::Builder;

fn rules(rules: &[(Kind, &str, bool)]) -> RuleSet {
    let mut builder = Builder::default();
    for &(kind, host, subdomains) in rules {
        let path: &[u8] = if matches!(kind, Kind::Prefix | Kind::Exact) { b"/x/" } else { b"" };
        builder.push(&Rule { kind, host: host.as_bytes(), path, query: None, subdomains }, "", "");
    }
    builder.finish()
}

fn zone(block: &[(Kind, &str, bool)], allow: &[(Kind, &str, bool)], inspect: bool) -> Vec<(String, Effect, Effect)> {
    let (block, allow) = (rules(block), rules(allow));
    let source = |rules, allow| Source { rules, allow, www_alias: false };
    let zone = Zone::build(&[source(&block, false), source(&allow, true)], 5, inspect);
    zone.iter().map(|named| (String::from_utf8_lossy(named.key).replace('\0', " "), named.own, named.below)).collect()
}

#[test]
fn names_hold_what_the_wildcards_above_them_would_not() {
    use Effect::{Block, None, Pass};
    let found = zone(
        &[(Kind::Domain, "x.test", false), (Kind::Host, "redundant.x.test", false), (Kind::Host, "alone.test", false)],
        &[(Kind::Host, "y.a.b.x.test", false), (Kind::Domain, "free.test", false)],
        false,
    );
    let expected = [
        ("test alone", Block, None),
        ("test x", Block, Block),
        ("test x b", Block, Block),
        ("test x b a", Block, Block),
        ("test x b a y", Pass, Block),
    ];
    assert_eq!(found, expected.map(|(key, own, below)| (key.to_owned(), own, below)));
}

#[test]
fn an_inspect_zone_says_what_is_blocked_below_its_wildcards() {
    use Effect::{Block, Inspect, None};
    let block = [
        (Kind::Prefix, "x.test", true),
        (Kind::Host, "a.x.test", false),
        (Kind::Domain, "whole.test", false),
        (Kind::Exact, "page.test", false),
    ];
    // The path rule on all subdomains is one on a.x.test as well, but that is blocked whole.
    let expected = [("test page", Inspect, None), ("test x", Inspect, Inspect), ("test x a", Block, Inspect)];
    assert_eq!(zone(&block, &[], true), expected.map(|(key, own, below)| (key.to_owned(), own, below)));
    let excepted = zone(&[(Kind::Domain, "x.test", false)], &[(Kind::Exact, "x.test", false)], false);
    assert_eq!(excepted, [("test x".to_owned(), None, Block)], "an exception for a page opens its host");
}

#[test]
fn what_dns_cannot_say_is_counted() {
    let long = format!("{}.test", vec!["a".repeat(60); 4].join("."));
    let wide = format!("{}.test", "a".repeat(64));
    let hosts = ["192.0.2.1", "[2001:db8::1]", &long, "a.rpz-ip", "x%20y.test", &wide];
    let rules = rules(&hosts.map(|host| (Kind::Domain, host, false)));
    let built = Zone::build(&[Source { rules: &rules, allow: false, www_alias: false }], 10, false);
    assert!(built.is_empty());
    assert_eq!(built.left_out, LeftOut { addresses: 2, digests: 0, names: 4 });
}

#[test]
fn a_host_with_no_room_for_a_wildcard_gets_none() {
    use Effect::{Block, Inspect, None, Pass};
    let origin = 5; // as in `zone`
    // The longest name has MAX_NAME - origin - 1 letters and dots; a wildcard below it takes STAR more.
    let host = |length: usize| {
        let rest = length - "x.test".len() - 4 * 51;
        format!("{}{}.x.test", format!("{}.", "a".repeat(50)).repeat(4), "b".repeat(rest - 1))
    };
    let longest = MAX_NAME - origin - 1;
    for (length, wildcard) in [(longest - STAR, true), (longest - STAR + 1, false), (longest, false)] {
        let name = host(length);
        assert_eq!(name.len(), length);
        let below = |effect| if wildcard { effect } else { None };
        let excepted = zone(&[(Kind::Domain, "x.test", false)], &[(Kind::Host, &name, false)], false);
        let last = excepted.last().map(|found| (found.0.len(), found.1, found.2));
        assert_eq!(last, Some((length, Pass, below(Block))), "an exception of {length} bytes");
        let both = [(Kind::Prefix, "x.test", true), (Kind::Host, &name, false)];
        let blocked = zone(&both, &[], true);
        let last = blocked.last().map(|found| (found.0.len(), found.1, found.2));
        assert_eq!(last, Some((length, Block, below(Inspect))), "a blocked host of {length} bytes");
    }
    let too_long = host(longest + 1);
    assert!(zone(&[(Kind::Host, &too_long, false)], &[], false).is_empty());
}

#[test]
fn changes_in_a_row_are_one_change() {
    let build = |hosts: &[(Kind, &str, bool)]| {
        let rules = rules(hosts);
        Zone::build(&[Source { rules: &rules, allow: false, www_alias: false }], 5, false)
    };
    let versions = [
        build(&[(Kind::Host, "a.test", false), (Kind::Host, "b.test", false)]),
        build(&[(Kind::Domain, "a.test", false), (Kind::Host, "c.test", false)]),
        build(&[(Kind::Host, "a.test", false), (Kind::Host, "c.test", false), (Kind::Domain, "b.test", false)]),
    ];
    let both = Delta::between(&versions[0], &versions[1]).then(&Delta::between(&versions[1], &versions[2]));
    let direct = Delta::between(&versions[0], &versions[2]);
    assert_eq!((both.removed.digest(), both.added.digest()), (direct.removed.digest(), direct.added.digest()));
    assert_eq!(direct.len(), 2);
}
