//! `quorate up` and `quorate join`: the daemon, in the foreground, until it is told to stop.
//!
//! Whoever founds a cluster becomes its administrator: the way in is written as a context.
//!
//! Invariant: the process ends only when the node has stopped in order, or could not start and said why.

use std::path::{Path, PathBuf};

use quorate_node::daemon::{self, Engine, Founded, Settings};
use quorate_proto::refusal::{Reason, Refusal};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Global, Join, Node, Up},
    config::{self, Config, Context},
    failure::Failure,
    transport::local,
};

const WHAT: &str = "the daemon did not start";

/// The context that founding a cluster writes, if none is named.
pub(crate) const CONTEXT: &str = "default";

/// Where cluster names end in.
const ZONE: &str = "cluster.local";

pub(crate) fn up(global: &Global, arguments: Up) -> Result<(), Failure> {
    log(&arguments.node.log)?;
    let contexts = config::path(|name| std::env::var(name).ok()).map_err(|error| error.refusal(WHAT))?;
    // A file that cannot be used is found out before a cluster is founded whose key would be lost.
    Config::read(&contexts).map_err(|error| error.refusal(WHAT))?;
    let name = global.context.clone().unwrap_or_else(|| CONTEXT.to_owned());
    let mut settings = settings(arguments.node)?;
    settings.service_range = arguments.service_range;
    settings.pod_range = arguments.pod_range;
    run(async |shutdown| daemon::up(settings, |founded| remember(&contexts, &name, &founded), shutdown).await)
}

pub(crate) fn join(arguments: Join) -> Result<(), Failure> {
    log(&arguments.node.log)?;
    let settings = settings(arguments.node)?;
    run(async |shutdown| daemon::join(settings, &arguments.token, arguments.fresh, shutdown).await)
}

/// Sends what the daemon logs to stderr.
fn log(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(
            WHAT,
            format!("`{filter}` is no filter for logs: {error}"),
            "write error, warn, info, debug or trace, or by part: info,quorate_raft=debug",
        )
    })?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).init();
    Ok(())
}

fn settings(node: Node) -> Result<Settings, Failure> {
    let socket = if node.simulated { node.data_dir.join("api.sock") } else { PathBuf::from(local::SOCKET) };
    let engine = if node.simulated { Engine::Simulated } else { Engine::Docker(engine_socket(&node.docker)?) };
    Ok(Settings {
        data: node.data_dir,
        listen: node.listen,
        advertise: node.advertise,
        name: node.name,
        engine,
        service_range: crate::args::SERVICES,
        pod_range: crate::args::PODS,
        zone: ZONE.to_owned(),
        timing: None,
        socket,
    })
}

fn engine_socket(url: &str) -> Result<PathBuf, Failure> {
    match local::path(url) {
        Some(path) => Ok(path.to_owned()),
        None => Err(Failure::usage(
            WHAT,
            format!("`{url}` is no socket of a Docker Engine"),
            "write --docker unix:///var/run/docker.sock",
        )),
    }
}

/// Runs the daemon until it ends or is told to by SIGINT or SIGTERM.
fn run(daemon: impl AsyncFnOnce(CancellationToken) -> Result<(), Refusal>) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers(cores)).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let tasks = TaskTracker::new();
        let told = shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = told.cancelled() => return,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("told to stop");
            told.cancel();
        });
        let ended = daemon(shutdown.clone()).await;
        shutdown.cancel();
        tasks.close();
        tasks.wait().await;
        Ok(ended?)
    })
}

/// Threads for all that waits for the network: half of the cores. Containers have the rest; and work that is passed on between threads
/// costs a switch each time, which is most of what a node with little to do does.
const fn workers(cores: usize) -> usize {
    cores.div_ceil(2)
}

/// Writes the way in to a new cluster as a context, and makes it the current one if there is none.
pub(crate) fn remember(path: &Path, name: &str, founded: &Founded) -> Result<(), Refusal> {
    let refused = |error: config::ConfigError| error.refusal("the cluster was not founded");
    let context = Context {
        endpoints: founded.endpoints.iter().map(ToString::to_string).collect(),
        cluster: founded.cluster.to_string(),
        identity: founded.administrator.to_pem().to_string(),
        namespace: None,
    };
    let remembered = Config::update(path, |config| {
        if let Some(other) = config.contexts.get(name).filter(|other| other.cluster != context.cluster) {
            let because = format!("the context `{name}` is of the cluster {}", other.cluster);
            return Err(Refusal::new(Reason::Conflict, "the cluster was not founded", because)
                .hint("name another with --context NAME, and start again with an empty data directory"));
        }
        config.contexts.insert(name.to_owned(), context);
        config.current.get_or_insert_with(|| name.to_owned());
        Ok(())
    });
    remembered.map_err(refused)??;
    tracing::info!(context = name, "founded a cluster; its administrator's context is written");
    Ok(())
}
