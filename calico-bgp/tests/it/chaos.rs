//! Two and three speakers on a wire that delays each connection differently, cuts and resets them, while the speakers are
//! told other things and restart: whatever happened, afterwards they agree, by one connection each, and stay so.

use std::time::Duration;

use calico_bgp::session::Initiation;
use calico_bgp::{Event, Start};

use crate::world::{Dice, World};

const SPEAKERS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const LINKS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

fn chaos(seed: u64) {
    let mut dice = Dice(seed);
    let mut world = World::new();
    world.dice = Some((Dice(!seed), 1 + dice.roll(3000)));
    let external = dice.roll(2) == 0;
    for (at, address) in SPEAKERS.into_iter().enumerate() {
        world.add(address, 65001 + if external { at as u32 } else { 0 });
    }
    for (a, b) in LINKS {
        let passive = dice.roll(4) == 0;
        world.join_with(SPEAKERS[a], SPEAKERS[b], |peer| peer.restart_time = 60);
        if passive {
            let mut peers = world.peers_of(SPEAKERS[a]);
            peers.last_mut().unwrap().initiation = Initiation::Passive;
            world.set_peers(SPEAKERS[a], peers);
        }
    }
    let mut told = [0, 0, 0];
    let tell = |world: &mut World, at: usize, number: u64| {
        world.originate(SPEAKERS[at], &[&format!("10.{}.{number}.0/24", at + 1), "10.9.0.0/16"]);
    };
    (0..3).for_each(|at| tell(&mut world, at, 0));
    for _ in 0..40 {
        let (a, b) = *dice.pick(&LINKS);
        let at = dice.roll(3) as usize;
        match dice.roll(5) {
            0 => {
                world.cut(SPEAKERS[a], SPEAKERS[b]);
                let pause = dice.roll(400_000);
                world.run(Duration::from_millis(pause));
                world.mend(SPEAKERS[a], SPEAKERS[b]);
                world.break_connections(SPEAKERS[a], SPEAKERS[b]);
            }
            1 => world.break_connections(SPEAKERS[a], SPEAKERS[b]),
            2 => {
                let start = if dice.roll(2) == 0 { Start::Fresh } else { Start::Recovering };
                world.restart(SPEAKERS[at], start);
                tell(&mut world, at, told[at]);
            }
            3 => {
                told[at] = dice.roll(200);
                tell(&mut world, at, told[at]);
            }
            _ => {
                let now = world.now;
                world.speaker(SPEAKERS[a]).reset_peer(SPEAKERS[b].parse().unwrap(), "chaos", now);
            }
        }
        let pause = dice.roll(20_000);
        world.run(Duration::from_millis(pause));
    }
    world.run_secs(600);
    world.events.clear();
    world.run_secs(3600);
    let down = world.events.iter().find(|(_, event)| !matches!(event, Event::Routes | Event::Settled));
    assert!(down.is_none(), "seed {seed}: an hour without a fault, and yet {down:?}");
    for (a, b) in LINKS {
        assert!(
            world.is_up(SPEAKERS[a], SPEAKERS[b]) && world.is_up(SPEAKERS[b], SPEAKERS[a]),
            "seed {seed}"
        );
    }
    for (at, address) in SPEAKERS.into_iter().enumerate() {
        let others = (0..3).filter(|other| *other != at);
        let expected: Vec<String> = others
            .map(|other| format!("10.{}.{}.0/24 via {}", other + 1, told[other], SPEAKERS[other]))
            .collect();
        assert_eq!(world.learned_text(address), expected, "seed {seed}");
    }
}

#[test]
fn whatever_happened_the_speakers_agree_afterwards_and_stay_so() {
    (0..20).for_each(chaos);
}
