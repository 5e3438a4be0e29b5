//! The `quorate` command, and the only binary: it is the daemon too.
//!
//! Answers go to stdout, talk goes to stderr; the exit code is 0 done, 1 refused, 2 wrong usage, 3 nobody reachable or no quorum.
//!
//! Invariant: every message says what, because of what, and what to do next, and has a snapshot test.

mod age;
mod args;
mod chosen;
mod client;
mod commands;
mod config;
mod dev;
mod failure;
mod manifests;
mod output;
mod peers;
mod session;
mod targets;
mod transport;
mod watching;

use std::{io, io::Write as _, path::Path, process::ExitCode, sync::Arc};

use clap::Parser as _;
use quorate_node::world::SystemClock;
use quorate_proto::refusal::Refusal;

use crate::{
    args::{Arguments, Cluster, Get, Global, Output, Selectors, Verb},
    chosen::Chosen,
    commands::{
        apply, backup, check, cluster, context, cordon, delete, describe, events, get, leave, logs, scale, status,
        token, up,
    },
    config::Config,
    failure::Failure,
    output::Console,
    session::Session,
    transport::local,
};

/// Small objects of many sizes are made on one thread and dropped on another, all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers; everything else is wrong usage. Nothing is left to do if neither can be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_broken_pipe() && !matches!(failure, Failure::Exit(_)) {
                let _ = writeln!(io::stderr(), "{failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let console = Console { out: &mut out, err: &mut err };
    match arguments.verb {
        Verb::Up(up) => up::up(&arguments.global, up),
        Verb::Join(join) => up::join(join),
        Verb::DevInit(init) => Ok(dev::init::run(&init)?),
        verb => block_on(client_verb(arguments.global, verb, console)),
    }
}

/// Runs what a client does on one thread: it mostly waits.
fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(future)
}

async fn client_verb(global: Global, verb: Verb, mut console: Console<'_>) -> Result<(), Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let path = config::path(environment).map_err(|error| error.refusal("contexts were not read"))?;
    if let Verb::Backup(verb) = &verb
        && let Some(done) = backup::offline(&global, verb, &mut console)
    {
        return done;
    }
    match verb {
        Verb::Check(arguments) => return check::run(&arguments, &mut io::stdin(), &mut console),
        Verb::Context(arguments) => return context::run(&path, arguments, &mut console),
        Verb::Dev(arguments) => return dev::run(arguments, &path, &mut console).await,
        Verb::Cluster(Cluster::Recover(arguments)) => return cluster::recover(&arguments, &mut console),
        _ => {}
    }

    let config = Config::read(&path).map_err(|error| error.refusal("no cluster was asked"))?;
    let chosen = chosen::choose(&global, &config, Path::new(local::SOCKET).exists())?;
    let mut session = session(&global, &chosen, console)?;
    let client = session.client.clone();
    let learn = async {
        if let Err(error) = peers::learn(&client, &path, chosen.name).await {
            let refusal = error.refusal("where the nodes are was not written down");
            // Nothing is left to do if it cannot be said either.
            let _ = writeln!(io::stderr(), "{refusal}");
        }
    };
    peers::learning(learn, client_command(&mut session, verb)).await
}

/// A verb that asks the cluster.
async fn client_command(session: &mut Session<'_>, verb: Verb) -> Result<(), Failure> {
    let mut stdin = io::stdin();
    match verb {
        Verb::Apply(arguments) => apply::run(session, arguments, &mut stdin).await,
        Verb::Get(arguments) => get::run(session, arguments).await,
        Verb::Describe(arguments) => describe::run(session, arguments).await,
        Verb::Delete(arguments) => delete::run(session, arguments, &mut stdin).await,
        Verb::Scale(arguments) => scale::run(session, arguments).await,
        Verb::Logs(arguments) => logs::run(session, arguments).await,
        Verb::Cordon(nodes) => cordon::cordon(session, nodes).await,
        Verb::Uncordon(nodes) => cordon::uncordon(session, nodes).await,
        Verb::Events(arguments) => events::run(session, arguments).await,
        Verb::Nodes(arguments) => get::run(session, nodes(arguments.output, arguments.watch)).await,
        Verb::Status { output } | Verb::Cluster(Cluster::Status { output }) => status::run(session, output).await,
        Verb::Leave(arguments) => leave::run(session, arguments).await,
        Verb::Token(arguments) => token::run(session, arguments).await,
        Verb::Backup(verb) => backup::run(session, verb).await,
        Verb::Up(_)
        | Verb::Join(_)
        | Verb::DevInit(_)
        | Verb::Check(_)
        | Verb::Context(_)
        | Verb::Dev(_)
        | Verb::Cluster(_) => Ok(()),
    }
}

/// `quorate nodes` is `quorate get nodes -o wide`.
fn nodes(output: Output, watch: bool) -> Get {
    let selectors = Selectors { all_namespaces: false, selector: String::new(), field_selector: String::new() };
    Get { what: vec!["nodes".to_owned()], selectors, output, watch, stale: false }
}

/// What verbs work with, for the context that is meant.
fn session<'a>(global: &Global, chosen: &Chosen<'_>, console: Console<'a>) -> Result<Session<'a>, Refusal> {
    let namespace = chosen.context.and_then(|context| context.namespace.clone());
    Ok(Session {
        client: transport::client(chosen.context, &chosen.endpoints, global.request_timeout)?,
        named_namespace: global.namespace.clone(),
        default_namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        clock: Arc::new(SystemClock::start()),
        console,
    })
}
