//! The programs' logs: to standard error, at the level that Calico's variables name.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Begins to log. The level is `CALICO_LOG` (any filter of `tracing-subscriber`, such as `info,calico_bgp=debug`), else
/// `FELIX_LOGSEVERITYSCREEN`, else `info`.
pub fn begin() {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let level =
        var("CALICO_LOG").or_else(|| var("FELIX_LOGSEVERITYSCREEN").map(|level| severity(&level).to_owned()));
    let filter =
        EnvFilter::try_new(level.as_deref().unwrap_or("info")).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call (an embedder that logs already) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

/// Turns Felix's severities into levels.
fn severity(felix: &str) -> &'static str {
    match felix.to_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "warning" | "warn" => "warn",
        "error" | "fatal" => "error",
        "none" => "off",
        _ => "info",
    }
}
