//! The reference agent.

use std::process::ExitCode;

use anyhow::Context;
use calico_model::datastore::client::Client;
use calico_model::resource::FelixConfiguration;
use calico_model::{AsNumber, InterfaceAddr, NodeName, RouterId};
use calico_node::agent::{self, Options};
use calico_node::config::DatastoreConfig;
use calico_node::paths::Paths;
use calico_node::reflector;
use calico_node::settings::Settings;
use calico_node::status::StatusServer;
use calico_node::{datastore, stamp, startup, telemetry};
use calico_route::Ownership;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Programs this node's routes and packet filters, and tells other nodes by BGP which addresses live here.
///
/// Configured by its environment: NODENAME, IP, AS, CALICO_IPV4POOL_CIDR, DATASTORE_TYPE, CALICO_DATASTORE_PATH and the
/// other variables of Calico's node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent until it is told to stop; the default.
    Run,
    /// Removes everything of Calico's from this host's kernel: rules, routes, tunnels, neighbours.
    Cleanup {
        /// With what the names of workloads' interfaces begin, separated by commas: interfacePrefix of the
        /// FelixConfiguration.
        #[arg(long, env = "FELIX_INTERFACEPREFIX", default_value = "cali", value_name = "PREFIXES")]
        interface_prefix: String,
    },
    /// Runs a stand-alone route reflector, which programs nothing: it reflects routes between the nodes whose BGPPeers
    /// name its address, and peers with the other stand-alone reflectors.
    RouteReflector(Reflector),
}

#[derive(Args)]
struct Reflector {
    /// The reflector's IPv4 or IPv6 address, with or without a prefix length.
    #[arg(long, env = "IP")]
    ip: InterfaceAddr,
    /// The address of the other family, if it has one.
    #[arg(long, env = "IP6")]
    ip6: Option<InterfaceAddr>,
    /// The cluster it reflects for, in the form of an IPv4 address (RFC 4456).
    #[arg(long)]
    cluster_id: RouterId,
    /// Its AS number; without one the cluster's.
    #[arg(long = "as", env = "AS")]
    as_number: Option<AsNumber>,
    /// What it is called in the datastore.
    #[arg(long, env = "NODENAME")]
    name: Option<NodeName>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start").and_then(|runtime| {
        runtime.block_on(async {
            match arguments.command {
                None | Some(Command::Run) => run().await,
                Some(Command::Cleanup { interface_prefix }) => {
                    let settings = FelixConfiguration {
                        interface_prefix: Some(interface_prefix),
                        ..FelixConfiguration::new()
                    };
                    agent::cleanup(&Ownership::of(&settings)).await.map_err(anyhow::Error::from)
                }
                Some(Command::RouteReflector(wanted)) => reflect(wanted).await,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    // From the first moment: the first process of a container has no other way to end when it is asked to.
    let stop = stopped()?;
    tokio::pin!(stop);
    let var = |name: &str| std::env::var(name).ok();
    let paths = Paths::from_env();
    let stored_name = std::fs::read_to_string(paths.nodename_file()).ok();
    let hostname = nix::unistd::gethostname().context("this host's name cannot be read")?;
    let settings =
        Settings::read(var, stored_name.as_deref().map(str::trim_end), &hostname.to_string_lossy())?;
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("calico-node programs the kernel: run it as root");
    }
    let loaded = DatastoreConfig::from_vars(var, &paths)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Also a claim of the node: a second agent goes no further.
    let server = StatusServer::listen(&paths.status_socket())?;
    let store = datastore::open(&loaded.datastore).await?;
    let client = Client::new(store.clone(), stamp::stamp);
    tokio::select! {
        registered = startup::register_in_time(&client, &settings, &paths) => registered?,
        () = &mut stop => {
            tracing::info!("asked to stop before the node was set up");
            return Ok(());
        }
    }
    tracing::info!(node = %settings.node, datastore = loaded.datastore.describe(), "set up");

    let datastore = loaded.datastore.describe();
    agent::run(Options { settings, paths, store, datastore, server }, stop).await?;
    Ok(())
}

async fn reflect(wanted: Reflector) -> anyhow::Result<()> {
    let stop = stopped()?;
    let paths = Paths::from_env();
    let loaded = DatastoreConfig::from_vars(|name| std::env::var(name).ok(), &paths)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let server = StatusServer::listen(&paths.status_socket())?;
    let store = datastore::open(&loaded.datastore).await?;
    let node = match wanted.name {
        Some(name) => name,
        None => format!("route-reflector-{}", wanted.ip.addr()).replace(['.', ':'], "-").parse()?,
    };
    tracing::info!(%node, datastore = loaded.datastore.describe(), "reflects");
    let options = reflector::Options {
        node,
        addresses: std::iter::once(wanted.ip).chain(wanted.ip6).collect(),
        cluster_id: wanted.cluster_id,
        as_number: wanted.as_number,
        paths,
        store,
        datastore: loaded.datastore.describe(),
        server,
        wait_for_datastore: std::env::var("WAIT_FOR_DATASTORE").as_deref() == Ok("true"),
    };
    reflector::run(options, stop).await?;
    Ok(())
}

/// Completes when the program is told to stop.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
