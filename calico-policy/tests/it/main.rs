//! What the compiler promises, seen from outside.

mod kernel;
mod meaning;
mod netns;
