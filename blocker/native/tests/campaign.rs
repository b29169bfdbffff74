//! A bounded random campaign over everything that reads bytes from outside: no input may crash, hang or break a promise.
//!
//! `CAMPAIGN_INPUTS` sets the number of inputs of each campaign (default 1 000 000), `CAMPAIGN_SEED` the first one. A failure
//! prints its seed.

use blocker_native::canonical::{Canonical, MAX_URL_BYTES};
use blocker_native::decide::{Policy, Verdict, Walker};
use blocker_native::lines::LineParser;
use blocker_native::merge;
use blocker_native::node::LookupKey;
use blocker_native::rule::{Format, Kind, Options};
use blocker_native::ruleset::RuleSet;
use blocker_native::run::{self, Fold, NodeRun};
use blocker_native::segment::Segment;
use blocker_native::table::{ListInfo, Table};

mod random;

use random::{Random, campaign};

/// Pieces that URLs are made of, the odd ones among them; joined at random they reach every branch.
const PIECES: &[&[u8]] = &[
    b"http",
    b"HTTPS",
    b"ws",
    b"ftp",
    b"gopher",
    b":",
    b"/",
    b"//",
    b"\\",
    b"?",
    b"#",
    b"@",
    b"%",
    b"%2",
    b"%25",
    b"%2f",
    b"%2E",
    b"%3F",
    b"%5c",
    b"%00",
    b"%ff",
    b".",
    b"..",
    b"...",
    b"a",
    b"B",
    b"example",
    b"www.",
    b"co.uk",
    b"xn--",
    b"xn--bcher-kva",
    "\u{fc}".as_bytes(),
    "\u{ff0e}".as_bytes(),
    "\u{3002}".as_bytes(),
    "\u{ad}".as_bytes(),
    "\u{200d}".as_bytes(),
    b"\xff",
    b"\xc3",
    b"[",
    b"]",
    b"::",
    b"::1",
    b"1",
    b"0x7f",
    b"017",
    b"256",
    b"4294967295",
    b"192.0.2.1",
    b":80",
    b":99999",
    b" ",
    b"\t",
    b"\r\n",
    b"\x01",
    b"\x7f",
    b"*",
    b"*.",
    b"/*",
    b",",
    b")",
    b"|",
    b"&",
    b"=",
    b";",
    b"\"",
    b"<",
    b"^",
    b"`",
    b"{",
    b"~",
    b"-",
    b"_",
];

fn url(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    if random.below(3) > 0 {
        text.extend_from_slice(b"http://");
    }
    for _ in 0..random.below(14) {
        text.extend_from_slice(random.pick(PIECES));
    }
    if random.below(8) == 0 && !text.is_empty() {
        let at = random.below(text.len());
        text[at] = random.next() as u8;
    }
    text
}

fn options(random: &mut Random) -> Options {
    Options {
        format: random.pick(&[Format::Url, Format::Domain, Format::Hosts]),
        bare: random.pick(&[Kind::Host, Kind::Domain]),
        trailing_slash: random.pick(&[Kind::Prefix, Kind::Exact]),
        name: random.pick(&[Kind::Domain, Kind::Host]),
    }
}

fn rules(random: &mut Random, lines: usize) -> RuleSet {
    let mut parser = LineParser::new(options(random), MAX_URL_BYTES, 10);
    for _ in 0..lines {
        let line: Vec<u8> = url(random).into_iter().filter(|byte| !matches!(byte, 0 | b'\n')).collect();
        parser.feed(&line).expect("no NUL");
        parser.feed(b"\n").expect("no NUL");
    }
    parser.finish().finish()
}

fn table(rules: &RuleSet, key: &LookupKey, random: &mut Random) -> Table {
    let options = run::Options { www_alias: random.below(2) == 0, fold_case: random.below(2) == 0 };
    let segments = NodeRun::build(rules, key, options).segments(key, 200);
    let layers = vec![segments.iter().map(|bytes| Segment::open(bytes, key).expect("just made")).collect::<Vec<_>>()];
    let (most, depth) = (layers[0].iter().map(Segment::len).sum(), layers[0].iter().map(Segment::depth).max());
    let list = ListInfo { name: "list".to_owned(), serial: 1, allow: false, metadata: String::new() };
    let folds = vec![Fold::new(&layers).expect("just made")];
    merge::merge(vec![list], folds, most, depth.unwrap_or(0) as usize, key).expect("one small list")
}

#[test]
fn canonical_urls_are_total_idempotent_and_printable() {
    let (mut first, mut second) = (Canonical::default(), Canonical::default());
    campaign(1, |random| {
        let input = url(random);
        if first.set(&input).is_err() {
            return;
        }
        assert!(first.text().bytes().all(|byte| (0x21..0x7f).contains(&byte)));
        assert!(first.path().starts_with(b"/"));
        second.set(first.text().as_bytes()).expect("a canonical URL is a URL");
        assert_eq!(first.text(), second.text());
        assert_eq!(first.is_address(), second.is_address());
    });
}

#[test]
fn every_rule_blocks_its_own_url_and_canonical_forms_decide_alike() {
    let key = LookupKey::new(&[3; 16]);
    let policy = Policy { block: 1, order: vec![0], ..Policy::default() };
    let mut walker = Walker::default();
    campaign(20, |random| {
        let set = rules(random, 20);
        let table = table(&set, &key, random);
        for entry in set.iter() {
            let path = if entry.rule.path.is_empty() { b"/" } else { entry.rule.path };
            let mut text = [b"http://", entry.rule.host, path].concat();
            if let Some(query) = entry.rule.query {
                text.push(b'?');
                text.extend_from_slice(query);
            }
            let own = walker.decide(&table, &policy, &text).expect("a rule's own URL");
            assert_eq!(own.verdict(), Verdict::Block, "{}", String::from_utf8_lossy(&text));
            let (host, _) = walker.decide_host(&table, &policy, entry.rule.host).expect("a rule's own host");
            assert_ne!(host, Verdict::Allow);
        }
        for _ in 0..20 {
            let asked = url(random);
            if let Ok(outcome) = walker.decide(&table, &policy, &asked) {
                let canonical = walker.url().text().to_owned();
                let again = walker.decide(&table, &policy, canonical.as_bytes()).expect("a canonical URL is a URL");
                assert_eq!(outcome.verdict(), again.verdict());
            }
        }
    });
}

#[test]
fn lists_read_the_same_however_they_are_split() {
    campaign(10, |random| {
        let mut text = Vec::new();
        for _ in 0..random.below(12) {
            text.extend(url(random));
            text.extend_from_slice(random.pick(&[b"\n", b"\r", b" "]));
        }
        let options = options(random);
        let read = |size: &mut dyn FnMut() -> usize| {
            let (mut parser, mut rest) = (LineParser::new(options, 60, 5), text.as_slice());
            while !rest.is_empty() {
                let (chunk, later) = rest.split_at(size().clamp(1, rest.len()));
                if parser.feed(chunk).is_err() {
                    return None;
                }
                rest = later;
            }
            let set = parser.finish().finish();
            Some((set.text().to_vec(), parser.lines(), parser.bad(), parser.errors().to_vec()))
        };
        let whole = read(&mut || usize::MAX);
        assert!(whole == read(&mut || 1));
        assert!(whole == read(&mut || 1 + random.below(9)));
        if let Some((text, ..)) = whole {
            assert!(RuleSet::load(text.clone()).is_ok_and(|set| set.text() == text));
        }
    });
}

#[test]
fn damaged_segments_and_rule_texts_are_refused_or_whole() {
    let key = LookupKey::new(&[5; 16]);
    campaign(20, |random| {
        let set = rules(random, 6);
        let good = NodeRun::build(&set, &key, run::Options::default()).segments(&key, usize::MAX).remove(0);
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        bytes.truncate(bytes.len() - random.below(bytes.len().min(40)));
        if bytes != good {
            assert!(Segment::open(&bytes, &key).and_then(|segment| segment.verify()).is_err());
        }
        let mut text = set.text().to_vec();
        if !text.is_empty() {
            let at = random.below(text.len());
            text[at] ^= 1 << random.below(8);
            // What still loads is in order and parses; it may be another set, never a crash.
            if let Ok(set) = RuleSet::load(text) {
                assert_eq!(set.iter().count(), set.len());
            }
        }
    });
}

#[test]
fn damaged_tables_are_refused() {
    let key = LookupKey::new(&[7; 16]);
    let directory = std::env::temp_dir().join(format!("blocker-campaign-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let path = directory.join("table");
    campaign(2000, |random| {
        let set = rules(random, 30);
        table(&set, &key, random).save(&path).expect("room for a small file");
        let good = std::fs::read(&path).expect("just written");
        assert!(Table::open(&path, &key).is_ok());
        let mut bytes = good.clone();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        bytes.truncate(bytes.len() - random.below(2) * random.below(bytes.len()));
        // Another name each time: a mapped file must not change under a table.
        std::fs::remove_file(&path).expect("just written");
        std::fs::write(&path, &bytes).expect("room for a small file");
        assert!(bytes == good || Table::open(&path, &key).is_err());
        std::fs::remove_file(&path).expect("just written");
    });
    std::fs::remove_dir_all(&directory).expect("nothing else is in it");
}

#[test]
fn time_is_linear_in_length() {
    let worst: Vec<Vec<u8>> = [
        (b"http://h/".as_slice(), b"%25".as_slice()),
        (b"http://h/", b"../"),
        (b"http://h/", b"a/"),
        (b"http://h/?", b"%"),
        (b"http://", b"a."),
        (b"http://", b"%2e"),
        (b"", b"@"),
        (b"", b"\\"),
        (b"http://", "\u{fc}".as_bytes()),
    ]
    .iter()
    .map(|(head, body)| [*head, &body.repeat((MAX_URL_BYTES - head.len()) / body.len())].concat())
    .collect();
    let mut url = Canonical::default();
    let mut time = |input: &[u8]| {
        let runs = (0..5).map(|_| {
            let started = std::time::Instant::now();
            _ = url.set(input);
            started.elapsed()
        });
        runs.min().expect("five runs")
    };
    for input in &worst {
        let (whole, eighth) = (time(input), time(&input[..input.len() / 8]));
        // Linear is 8; quadratic would be 64. The floor keeps the clock's grain out.
        let limit = eighth.max(std::time::Duration::from_micros(20)) * 30;
        assert!(whole < limit, "{whole:?} for the whole, {eighth:?} for an eighth: {:?}…", &input[..12]);
    }
}
