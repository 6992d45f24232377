//! Rules of parameters that their types do not have.

use super::FelixConfiguration;
use crate::wire::Rules;

pub(super) fn check(felix: &mut FelixConfiguration, mut rules: Rules<'_, '_, '_>) {
    let prefixes = felix.interface_prefixes();
    if prefixes.is_empty()
        || prefixes.iter().any(|p| p.len() > 11 || p.parse::<crate::name::InterfaceName>().is_err())
    {
        let rule = "must be a comma-separated list of 1 to 11 letters, digits, '_', '.' or '-' each";
        rules.wrong("interfacePrefix", rule);
    }
    if felix.route_table_range.is_some() && felix.route_table_ranges.is_some() {
        rules.broken("routeTableRanges", &[], "must be absent when routeTableRange is given");
    }
    let range = felix.route_table_range.as_ref();
    if range.is_some_and(|range| range.min < 1 || range.max > 250 || range.min > range.max) {
        rules.wrong("routeTableRange", "must be inside 1 to 250, with min not above max");
    }
}
