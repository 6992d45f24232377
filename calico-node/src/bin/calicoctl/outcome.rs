//! What a verb has to say in the end.

use std::io::{self, Write};
use std::process::ExitCode;

use calico_model::SelectorError;
use calico_model::datastore::client::ClientError;
use calico_model::resource::ReadError;
use serde_json::Value;

/// In which form a verb answers.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// Print JSON.
    #[arg(short = 'o', long, value_parser = ["json"])]
    output: Option<String>,
}

impl Output {
    /// Makes the answer in the form asked for.
    pub fn of(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> String {
        if self.output.is_some() { format!("{:#}\n", json()) } else { text() }
    }
}

/// The text of a verb, and the errors that it went on past.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What goes to standard output.
    pub text: String,
    /// What goes to standard error, a sentence each. Any error makes the exit status 1 at least.
    pub errors: Vec<anyhow::Error>,
    /// The exit status of a verb that answers by it.
    pub status: u8,
}

impl Outcome {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    pub fn failed(error: anyhow::Error) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }

    /// Prints everything. A reader that has seen enough and closed the pipe is no error.
    pub fn print(self) -> ExitCode {
        let mut out = io::stdout().lock();
        let printed = out.write_all(self.text.as_bytes()).and_then(|()| out.flush());
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = writeln!(io::stderr(), "the output cannot be written: {error}");
                return ExitCode::FAILURE;
            }
            Ok(()) | Err(_) => {}
        }
        for error in &self.errors {
            // Nobody is left to be told that standard error is closed.
            let _ = writeln!(io::stderr(), "{error:#}");
            for snippet in snippets(error) {
                let _ = writeln!(io::stderr(), "    {}", snippet.replace('\n', "\n    "));
            }
        }
        ExitCode::from(self.status.max(u8::from(!self.errors.is_empty())))
    }
}

/// What shows where inside a value a mistake is.
fn snippets(error: &anyhow::Error) -> Vec<String> {
    if let Some(selector) = error.downcast_ref::<SelectorError>() {
        return vec![selector.caret()];
    }
    let read = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Invalid(read)) => Some(read),
        _ => error.downcast_ref::<ReadError>(),
    };
    match read {
        Some(ReadError::Invalid { faults, .. }) => {
            faults.0.iter().filter_map(|fault| fault.snippet.clone()).collect()
        }
        _ => Vec::new(),
    }
}
