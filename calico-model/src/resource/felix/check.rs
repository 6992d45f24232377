//! Rules of parameters that their types do not have.

use super::FelixConfiguration;
use crate::wire::{Path, Report, ToWire};

pub(super) fn check(felix: &mut FelixConfiguration, at: Path<'_>, report: &mut Report) {
    let prefixes = felix.interface_prefixes();
    if prefixes.is_empty()
        || prefixes.iter().any(|p| p.len() > 11 || p.parse::<crate::name::InterfaceName>().is_err())
    {
        let value = felix.interface_prefix.as_ref().map(ToWire::to_wire);
        report.fault(
            at.key("interfacePrefix"),
            value.as_ref(),
            "must be a comma-separated list of 1 to 11 letters, digits, '_', '.' or '-' each",
        );
    }
    if felix.route_table_range.is_some() && felix.route_table_ranges.is_some() {
        let value = felix.route_table_ranges.as_ref().map(ToWire::to_wire);
        report.fault(
            at.key("routeTableRanges"),
            value.as_ref(),
            "must be absent when routeTableRange is given",
        );
    }
    let range = felix.route_table_range.as_ref();
    if let Some(range) = range.filter(|range| range.min < 1 || range.max > 250 || range.min > range.max) {
        let rule = "must be inside 1 to 250, with min not above max";
        report.fault(at.key("routeTableRange"), Some(&range.to_wire()), rule);
    }
}
