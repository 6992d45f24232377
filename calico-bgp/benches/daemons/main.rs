//! BGP daemons beside one another: the same load for ours, BIRD, FRR and GoBGP in one run, fed and drained by one
//! generator. `make bench-bgp` builds our daemon (`examples/bgpd.rs`), installs the others and runs this.
//!
//! ```text
//! daemons --ours PATH [--load NAME]... [--daemon NAME]... [--runs N] [--scale PERCENT] [--json FILE] [--grow SVG]
//! ```
//!
//! Everything happens in a network namespace of the process's own, on its loopback interface, so that nothing is left
//! behind and real routes and ports are never touched. The figures that count are the daemon's CPU seconds (user and
//! system) from the first route on, and its peak resident memory; the wall time is there beside them, but shares two
//! cores with the generator. Of several runs the median is shown; a run in which a session was lost or a route never
//! came is shown as such. With `--grow` three loads are run in five sizes each, and
//! drawn but for the runs that failed.

mod daemon;
mod generator;
mod load;
mod plot;
mod session;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use daemon::Daemon;
use load::{Figures, Growing, Load};

struct Options {
    ours: PathBuf,
    loads: Vec<Load>,
    daemons: Vec<Daemon>,
    runs: usize,
    scale: usize,
    json: Option<PathBuf>,
    grow: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = options()?;
    enter_namespace()?;
    let folder = std::env::temp_dir().join(format!("bench-bgp-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let outcome = match &options.grow {
        Some(file) => grow(&options, &folder, file),
        None => run(&options, &folder),
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    outcome
}

fn run(options: &Options, folder: &std::path::Path) -> Result<()> {
    let mut lines = Vec::new();
    for load in &options.loads {
        println!("\n{load}");
        println!(
            "  {:<8} {:>10} {:>10} {:>10} {:>10} {:>12}",
            "", "CPU", "kernel's", "wall", "memory", "CPU of ours"
        );
        let mut ours = None;
        for daemon in &options.daemons {
            let mut runs = Vec::new();
            for _ in 0..options.runs {
                runs.push(load.run(*daemon, &options.ours, folder).map_err(|error| format!("{error:#}")));
            }
            match median(runs) {
                Ok(figures) => {
                    let first = *ours.get_or_insert(figures.cpu);
                    println!(
                        "  {:<8} {:>8.2} s {:>8.2} s {:>8.2} s {:>7.0} MB {:>11.2}x",
                        daemon.to_string(),
                        figures.cpu,
                        figures.system,
                        figures.wall,
                        figures.memory,
                        figures.cpu / first,
                    );
                    lines.push(format!(
                        "{{\"load\":\"{}\",\"daemon\":\"{daemon}\",\"cpu\":{},\"system\":{},\"wall\":{},\
                         \"memory\":{}}}",
                        load.name(),
                        figures.cpu,
                        figures.system,
                        figures.wall,
                        figures.memory
                    ));
                }
                Err(why) => println!("  {:<8} {why}", daemon.to_string()),
            }
        }
    }
    if let Some(path) = &options.json {
        std::fs::write(path, lines.join("\n") + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Draws how the costs of the daemons grow.
fn grow(options: &Options, folder: &std::path::Path, file: &std::path::Path) -> Result<()> {
    let mut panels = Vec::new();
    for Growing { across, loads } in Load::growing(options.scale) {
        let (mut cpu, mut memory) = (Vec::new(), Vec::new());
        for daemon in &options.daemons {
            let mut figures = Vec::new();
            for (size, load) in &loads {
                let run = || load.run(*daemon, &options.ours, folder).map_err(|error| format!("{error:#}"));
                let runs = (0..options.runs).map(|_| run()).collect();
                let median = match median(runs) {
                    Ok(median) => median,
                    Err(why) => {
                        println!("{daemon}: {load}: {why}");
                        continue;
                    }
                };
                let size = size.unwrap_or(median.told);
                println!(
                    "{daemon}: {size:.0} {across}: {:.3} s, {:.2} s of it the kernel's, {:.0} MB",
                    median.cpu, median.system, median.memory
                );
                figures.push((size, median));
            }
            let line = |of: fn(&Figures) -> f64| plot::Line {
                name: daemon.to_string(),
                points: figures.iter().map(|(size, figures)| (*size, of(figures))).collect(),
            };
            cpu.push(line(|figures| figures.cpu));
            memory.push(line(|figures| figures.memory));
        }
        for (title, up, lines) in [("CPU time", "seconds", cpu), ("Peak memory", "MB", memory)] {
            panels.push(plot::Panel { title: title.to_owned(), across, up, lines });
        }
    }
    std::fs::write(file, plot::svg(&panels)).with_context(|| format!("cannot write {}", file.display()))
}

/// Returns the run with the median CPU time; one that failed makes the whole worthless.
fn median(runs: Vec<Result<Figures, String>>) -> Result<Figures, String> {
    let mut figures = runs.into_iter().collect::<Result<Vec<_>, _>>()?;
    figures.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    figures.get(figures.len() / 2).copied().ok_or_else(|| "not run".to_owned())
}

fn options() -> Result<Options> {
    let mut options = Options {
        ours: PathBuf::new(),
        loads: Vec::new(),
        daemons: Vec::new(),
        runs: 3,
        scale: 100,
        json: None,
        grow: None,
    };
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(option) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{option} wants a value"))?;
        match option.as_str() {
            "--ours" => options.ours = value.into(),
            "--load" => names.push(value),
            "--daemon" => options.daemons.push(value.parse()?),
            "--runs" => options.runs = value.parse().with_context(|| format!("--runs {value}"))?,
            "--scale" => options.scale = value.parse().with_context(|| format!("--scale {value}"))?,
            "--json" => options.json = Some(value.into()),
            "--grow" => options.grow = Some(value.into()),
            _ => {
                bail!("{option} is not an option: --ours, --load, --daemon, --runs, --scale, --json, --grow")
            }
        }
    }
    if options.daemons.is_empty() {
        options.daemons = Daemon::ALL.to_vec();
    }
    if options.daemons.contains(&Daemon::Ours) && !options.ours.is_file() {
        bail!(
            "--ours must be the path of our daemon: cargo build --release -p calico-examples --example bgpd"
        );
    }
    let all = Load::all(options.scale);
    for name in &names {
        if !all.iter().any(|load| load.name() == name) {
            let known: Vec<&str> = all.iter().map(Load::name).collect();
            bail!("{name} is not a load: {}", known.join(", "));
        }
    }
    options.loads = all
        .into_iter()
        .filter(|load| names.is_empty() || names.iter().any(|name| name == load.name()))
        .collect();
    Ok(options)
}

/// Makes 10.0.0.0/8 local in a network namespace of this process, before it has a second thread.
fn enter_namespace() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("a network namespace needs root")?;
    for words in [
        &["link", "set", "lo", "up"][..],
        &["route", "add", "local", "10.0.0.0/8", "dev", "lo"],
        &["address", "add", "10.0.0.1/32", "dev", "lo"],
    ] {
        let status = Command::new("ip").args(words).status().context("cannot run ip")?;
        if !status.success() {
            bail!("ip {} failed", words.join(" "));
        }
    }
    Ok(())
}
