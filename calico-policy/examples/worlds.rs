//! Tries as many worlds as it is told (1,000 unless it is): each packet of each has one verdict, whoever reads it.
//!
//! `cargo run --release -p calico-policy --features strategies --example worlds -- 100000 [FIRST_SEED]`
//!
//! Of each five worlds one is crowded. Forty packets of each are asked of the resources, of the optimised rules and of the rules
//! as they are written. Prints the first disagreement and fails, or prints how much was tried.

use std::process::ExitCode;

use calico_policy::{Layout, compile_in, evaluate, simulate, strategies};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const PACKETS: usize = 40;
/// Worlds that are drawn with one seed.
const BATCH: usize = 1_000;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (Ok(count), Ok(first)) = (arguments.next().unwrap_or(Ok(1_000)), arguments.next().unwrap_or(Ok(0)))
    else {
        eprintln!("usage: worlds [COUNT [FIRST_SEED]], both whole numbers");
        return ExitCode::from(2);
    };
    let node = strategies::NODE.parse().expect("a constant name");
    let (mut packets, mut allowed) = (0_usize, 0_usize);
    for number in 0..count.div_ceil(BATCH) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&((first + number) as u64).to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        for i in 0..BATCH.min(count - number * BATCH) {
            let crowded = i % 5 == 4;
            let drawn = if crowded {
                strategies::crowded_world().new_tree(&mut runner).map(|tree| tree.current())
            } else {
                strategies::world().new_tree(&mut runner).map(|tree| tree.current())
            };
            let world = drawn.expect("worlds are drawn without rejecting any");
            let optimised = compile_in(Layout::Optimised, &world, &node);
            let written = compile_in(Layout::AsWritten, &world, &node);
            let drawn = strategies::packets(&world, PACKETS).new_tree(&mut runner);
            for packet in drawn.expect("packets are drawn without rejecting any").current() {
                let trace = evaluate(&world, &packet);
                let found = [simulate(&optimised, &packet), simulate(&written, &packet)];
                if found != [trace.outcome; 2] {
                    println!(
                        "seed {}, world {i}: {packet}\n{trace}\noptimised, as written: {found:?}\n{written}",
                        first + number
                    );
                    return ExitCode::FAILURE;
                }
                packets += 1;
                allowed += usize::from(trace.outcome.verdict == calico_policy::Verdict::Allow);
            }
        }
    }
    println!("{count} worlds, {packets} packets ({allowed} of them allowed): every reader agrees about each");
    ExitCode::SUCCESS
}
