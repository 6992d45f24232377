//! IPAM over a real datastore, from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod affinity;
mod assign;
mod check;
mod common;
mod contention;
mod cost;
mod cuts;
mod damage;
mod edge;
mod explore;
mod laws;
mod owners;
mod pools;
mod tunnel;
