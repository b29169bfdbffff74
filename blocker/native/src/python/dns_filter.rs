//! What the `dns` gateway answers about names in lists, read from what Python says of it.

use std::collections::HashMap;
use std::net::IpAddr;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::wire::dns::filter::{Addresses, Blocked, Filter, Reason};
use crate::wire::dns::name;

/// (list, error, structured text, shorter text); the list is empty for all others.
pub type ReasonFields = (String, u16, String, String);

fn addresses(all: Vec<IpAddr>) -> Addresses {
    let mut found = Addresses::default();
    for address in all {
        match address {
            IpAddr::V4(address) => found.v4.push(address),
            IpAddr::V6(address) => found.v6.push(address),
        }
    }
    found
}

/// A name as it goes over the wire.
pub fn wire(text: &str) -> PyResult<Vec<u8>> {
    name::to_wire(text).ok_or_else(|| PyValueError::new_err("not a name of letters, digits, hyphens and underscores"))
}

/// What names in lists get, without reasons; see `DnsService.filter`.
pub fn filter(blocked: &str, page: Vec<IpAddr>, inspect: Vec<IpAddr>, aliases: bool, ttl: u32) -> PyResult<Filter> {
    let blocked = match blocked {
        "nxdomain" => Blocked::NxDomain,
        "nodata" => Blocked::NoData,
        "addresses" => Blocked::Addresses(addresses(page)),
        _ => return Err(PyValueError::new_err("a blocked name gets nxdomain, nodata or addresses")),
    };
    let inspect = Some(inspect).filter(|all| !all.is_empty()).map(addresses);
    Ok(Filter { blocked, inspect, aliases, ttl, reasons: HashMap::default(), reason: Reason::default() })
}

/// Why names are blocked; see `DnsService.explain`.
pub fn explain(filter: &mut Filter, reasons: Vec<ReasonFields>) {
    for (list, error, full, short) in reasons {
        let reason = Reason { error, texts: [full, short] };
        if list.is_empty() {
            filter.reason = reason;
        } else {
            filter.reasons.insert(list, reason);
        }
    }
}
