//! The plugins' log: on standard error, and in a file when the configuration names one.

use std::fs::OpenOptions;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};

use super::Config;

/// Begins to log as the configuration says.
pub(super) fn begin(config: &Config) {
    let level = match config.log_level.as_deref().unwrap_or_default().to_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let file = config.log_file.as_ref().and_then(|path| {
        if let Some(folder) = path.parent() {
            // What cannot be made cannot be opened either, and that is told below.
            let _made = std::fs::create_dir_all(folder);
        }
        match OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                eprintln!("could not log to {}: {error}", path.display());
                None
            }
        }
    });
    let writer = match file {
        Some(file) => BoxMakeWriter::new(std::io::stderr.and(Mutex::new(file))),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false);
    // A second call (an embedder that logs already) keeps the first.
    let _kept = subscriber.with_writer(writer).try_init();
}
