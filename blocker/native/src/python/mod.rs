//! Binding layer: types and functions of `blocker._native`, documented in `_native.pyi`.

// Python's arguments arrive as owned values.
#![allow(clippy::needless_pass_by_value)]

mod batch;
mod decision;
mod dns;
mod dns_filter;
mod dns_upstream;
mod dns_zones;
mod errors;
mod gate;
mod hits;
mod lists;
mod matcher;
mod table;
mod text;
mod wire;
mod zone;

use pyo3::prelude::*;

use crate::{canonical, segment};

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("TABLE_VERSION", crate::table::VERSION)?;
    module.add("SEGMENT_VERSION", segment::VERSION)?;
    module.add("MAX_URL_BYTES", canonical::MAX_URL_BYTES)?;
    module.add("MAX_LISTS", crate::table::MAX_LISTS)?;
    module.add_function(wrap_pyfunction!(text::canonicalize, module)?)?;
    module.add_function(wrap_pyfunction!(text::surt, module)?)?;
    module.add_function(wrap_pyfunction!(text::best_language, module)?)?;
    module.add_function(wrap_pyfunction!(lists::canonical_rule, module)?)?;
    module.add_function(wrap_pyfunction!(lists::parse_rule, module)?)?;
    module.add_class::<lists::LineParser>()?;
    module.add_class::<lists::RuleSet>()?;
    module.add_class::<lists::RuleIterator>()?;
    module.add_class::<lists::NodeRun>()?;
    module.add_class::<table::Table>()?;
    module.add_class::<matcher::Matcher>()?;
    module.add_class::<decision::Decision>()?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<hits::HitMatrix>()?;
    module.add_class::<gate::Gate>()?;
    module.add_class::<dns::DnsService>()?;
    module.add_class::<dns::DnsSession>()?;
    module.add_class::<dns_upstream::DnsQuestion>()?;
    module.add_class::<dns_upstream::DnsExchange>()?;
    module.add_class::<dns_zones::DnsDatagram>()?;
    module.add_class::<dns_zones::DnsDatagrams>()?;
    module.add_class::<dns_upstream::DnsFound>()?;
    module.add_class::<wire::HttpSession>()?;
    module.add_class::<wire::IcapSession>()?;
    module.add_class::<wire::SpopSession>()?;
    module.add_class::<wire::SquidSession>()?;
    module.add_class::<zone::Zone>()?;
    module.add_class::<zone::ZoneDelta>()?;
    module.add_class::<zone::ZoneMessages>()?;
    Ok(())
}
