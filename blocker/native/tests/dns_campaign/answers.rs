//! What other resolvers answer: read, kept, and passed on.

use std::time::Duration;

use blocker_native::wire::dns::Step;
use blocker_native::wire::dns::cache::{Aged, Cache, write};
use blocker_native::wire::dns::message::{HEADER_BYTES, MAX_NAME_BYTES, Query, kind};
use blocker_native::wire::dns::reply::Transport;
use blocker_native::wire::dns::upstream::{Heard, Question, RANDOM_BYTES, hear};

use super::{Gate, LABELS, Random, campaign, check, damage, name, put, query, service};

/// Writes aliases, each of the one before and some with a pointer to it; gives their targets, whole.
fn aliases(random: &mut Random, asked: &[u8], out: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let (mut targets, mut owner) = (vec![asked.to_vec()], HEADER_BYTES);
    for _ in 0..random.pick(&[0, 0, 0, 1, 2, 5, 33]) {
        put(&[0xc000 | owner as u16, kind::CNAME, 1, 0, 300], out);
        let (mut data, mut whole) = (random.pick(LABELS).to_vec(), random.pick(LABELS).to_vec());
        if random.below(2) == 0 {
            whole.clone_from(&data);
            whole.extend_from_slice(&targets[targets.len() - 1]);
            put(&[0xc000 | owner as u16], &mut data);
        } else {
            name(random, &mut whole);
            data.clone_from(&whole);
        }
        put(&[data.len() as u16], out);
        owner = out.len();
        out.extend_from_slice(&data);
        targets.push(whole);
    }
    targets.split_off(1)
}

/// What another resolver may say to a query, and where its aliases lead.
fn reply(random: &mut Random, asked: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut out = asked[..asked.len() - 11].to_vec();
    let targets = aliases(random, &asked[HEADER_BYTES..asked.len() - 15], &mut out);
    let (answers, authorities, additional) = (random.below(4), random.below(2), random.below(3));
    out[2] = 0x81 | random.pick(&[0, 0, 0, 2]);
    out[3] = 0x80 | random.pick(&[0, 0, 0x20, 3, 2, 5]);
    let ttl = |random: &mut Random| random.pick(&[0_u32, 1, 300, u32::MAX]).to_be_bytes();
    for _ in 0..answers {
        put(&[0xc00c, random.pick(&[1, 28, 46]), 1], &mut out);
        out.extend_from_slice(&ttl(random));
        let data = vec![7; random.pick(&[4, 16, 600])];
        put(&[data.len() as u16], &mut out);
        out.extend_from_slice(&data);
    }
    for _ in 0..authorities {
        out.extend_from_slice(&[0, 0, 6, 0, 1]);
        out.extend_from_slice(&ttl(random));
        out.extend_from_slice(&[0, 22, 0, 0]);
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&ttl(random));
    }
    for number in 0..additional {
        out.extend_from_slice(if number == 0 {
            b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x08\x00\x0f\x00\x04\x00\x16hi"
        } else {
            b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x05\x00\x01\x00"
        });
    }
    for (at, count) in [targets.len() + answers, authorities, additional].into_iter().enumerate() {
        out[6 + 2 * at..8 + 2 * at].copy_from_slice(&(count as u16).to_be_bytes());
    }
    (out, targets)
}

#[test]
fn what_others_answer_is_passed_on_whole_or_not_at_all() {
    let mut output = Vec::new();
    campaign(4, |random| {
        let message = query(random);
        let Some(client) = Query::parse(&message, 0).filter(|query| query.fault.is_none() && query.name().len() > 1)
        else {
            return;
        };
        let transport = random.pick(&[Transport::Datagram, Transport::Stream, Transport::Encrypted]);
        let question = Question::new(&client, transport, false);
        let bits: [u8; RANDOM_BYTES] = std::array::from_fn(|_| random.next() as u8);
        let asked = question.forwarded(&bits);
        let (mut heard, _) = reply(random, &asked);
        let intact = random.below(2) == 0;
        if !intact {
            damage(random, &mut heard);
        }
        let Heard::Answer(found) = hear(&heard, &asked, Transport::Datagram) else { return };
        assert_eq!(heard[..2], asked[..2], "the id is the one that was drawn");
        output.clear();
        write(&found, &client, transport, Aged::By(1, 3600), &mut output);
        let answers = check(&output, &message, transport);
        let truncated = output[2] & 2 != 0;
        assert!(!truncated || (answers == 0 && transport == Transport::Datagram));
        if intact && !truncated {
            assert_eq!(answers, found.counts[0]);
        }
        let mut cache = Cache::new(10_000, 3600, 60);
        cache.keep(question.key(), &found, Duration::ZERO);
        assert_eq!(cache.is_empty(), found.lifetime == 0);
        output.clear();
        if let Some((kept, aged)) = cache.find(&client, Duration::from_secs(random.pick(&[0, 2, 400]))) {
            write(kept, &client, transport, aged, &mut output);
            assert!(check(&output, &message, transport) <= found.counts[0]);
        }
        // The same question with other letters, and from somebody who wants something else.
        let other = [&message[..12], &message[12..].to_ascii_uppercase()].concat();
        if let Some(asking) =
            Query::parse(&other, 0).filter(|asking| asking.question.eq_ignore_ascii_case(client.question))
        {
            output.clear();
            if let Some((kept, aged)) = cache.find_late(&asking, Duration::ZERO) {
                write(kept, &asking, transport, aged, &mut output);
                check(&output, &other, transport);
            }
        }
    });
}

#[test]
fn a_name_is_blocked_whose_answer_leads_over_a_blocked_one() {
    let (mut output, mut expected) = (Vec::new(), Vec::new());
    campaign(4, |random| {
        let (mut service, message) = (service(random), query(random));
        let transport = random.pick(&[Transport::Datagram, Transport::Stream, Transport::Encrypted]);
        output.clear();
        let step = service.answer(&message, transport, &mut Gate, Duration::ZERO, &mut output);
        let Step::Forward(question) = step else { return };
        let client = question.query();
        let asked = question.forwarded(&[0; RANDOM_BYTES]);
        let (said, targets) = reply(random, &asked);
        let heard = hear(&said, &asked, Transport::Stream);
        if said[2] & 2 != 0 {
            assert_eq!(heard, Heard::Truncated);
            return;
        }
        let sound = targets.len() <= 32 && targets.iter().all(|target| target.len() <= MAX_NAME_BYTES);
        let found = match heard {
            Heard::Answer(found) if sound => found,
            Heard::Failed if !sound => return,
            other => panic!("{other:?}"),
        };
        let hosts = targets.iter().filter_map(|target| target.get(1).filter(|_| target[0] != 0));
        let leads = hosts.clone().any(|first| first.eq_ignore_ascii_case(&b'b'));
        assert_eq!(found.aliases().count(), hosts.count());
        let filter = service.filter.clone().expect("only who filters forwards");
        let excepted = client.name().get(1).is_some_and(|first| first.eq_ignore_ascii_case(&b'e'));
        let blocked = leads && filter.aliases && !excepted;
        let expect = |aged, out: &mut Vec<u8>| {
            out.clear();
            if blocked {
                filter.block(&client, "police", transport, out);
            } else {
                write(&found, &client, transport, aged, out);
            }
        };
        expect(Aged::By(0, u32::MAX), &mut expected);
        service.answer_later(&question, Some(&*found), &mut Gate, Duration::ZERO, &mut output);
        assert_eq!(output, expected);
        check(&output, &message, transport);
        // And each time that it comes from what is kept.
        service.cache.keep(question.key(), &found, Duration::ZERO);
        output.clear();
        if let Step::Answered = service.answer(&message, transport, &mut Gate, Duration::ZERO, &mut output) {
            expect(Aged::By(0, 3600), &mut expected);
            assert_eq!(output, expected);
        }
    });
}

#[test]
fn a_cache_stays_within_its_bounds_and_forgets_what_nobody_asks_for() {
    let mut cache = Cache::new(20_000, 3600, 0);
    let mut output = Vec::new();
    let ask = |number: usize| {
        let mut message = Vec::new();
        put(&[1, 0x0100, 1, 0, 0, 0], &mut message);
        message.extend_from_slice(format!("\x08{number:08}\x07example\x00").as_bytes());
        put(&[1, 1], &mut message);
        message
    };
    let keep = |number: usize, cache: &mut Cache, output: &mut Vec<u8>| {
        let popular = ask(0);
        output.clear();
        let popular = Query::parse(&popular, 0).expect("a query");
        let known = cache.find(&popular, Duration::ZERO).is_some();
        let message = ask(number);
        let query = Query::parse(&message, 0).expect("a query");
        let question = Question::new(&query, Transport::Datagram, false);
        let asked = question.forwarded(&[0; RANDOM_BYTES]);
        let mut heard = asked[..asked.len() - 11].to_vec();
        heard[2] |= 0x80;
        heard[11] = 0;
        heard[7] = 1;
        put(&[0xc00c, 1, 1, 0, 300, 4, 1, 1], &mut heard);
        let Heard::Answer(found) = hear(&heard, &asked, Transport::Datagram) else { panic!("a good answer") };
        assert_eq!(found.lifetime, 300);
        cache.keep(question.key(), &found, Duration::ZERO);
        known
    };
    keep(0, &mut cache, &mut output);
    for number in 1..2000 {
        assert!(keep(number, &mut cache, &mut output), "what is asked for all the time stays, {number}");
        assert!(cache.len() < 60);
    }
    assert!(cache.len() > 20);
    cache.configure(0, 3600, 0);
    assert!(cache.is_empty());
}
