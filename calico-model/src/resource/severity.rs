//! How severe a log message is.

use crate::wire::wire_enum;

wire_enum! {
    in any case
    /// A severity of log messages.
    pub enum Severity {
        /// Every step.
        Trace = "Trace",
        /// Every decision.
        Debug = "Debug",
        /// Every change.
        Info = "Info",
        /// What is retried.
        Warning = "Warning",
        /// What needs a person.
        Error = "Error",
        /// What ends the agent.
        Fatal = "Fatal",
    }
}
