//! Switches a host on: its first process, its Docker Engine, its daemon.
//!
//! Invariant: switching on what is on changes nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_proto::refusal::{Reason, Refusal};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use super::{
    plan::{CONTROL_GROUP, Host, Plan},
    processes, shell,
};

/// How long a Docker Engine may take to answer.
const ENGINE: Duration = Duration::from_secs(60);

/// How long it may take until an engine's process is there.
const BEGUN: Duration = Duration::from_secs(3);

/// How long a first process may take to appear.
const INIT: Duration = Duration::from_secs(10);

/// How a daemon is started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Daemon<'a> {
    /// It founds the cluster, or was a member before.
    Up,
    /// It joins with this token.
    Join(&'a str),
}

fn failed(host: &Host, because: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Internal, format!("{} was not switched on", host.name), because)
}

/// Whether a daemon has been a member: then it needs no token.
pub(crate) fn was_member(host: &Host) -> bool {
    host.data().join("identity.pem").exists()
}

/// Makes the host's directory; only root looks into it, keys are there.
pub(crate) fn make_directory(host: &Host) -> Result<(), Refusal> {
    let made = fs::create_dir_all(&host.directory)
        .and_then(|()| fs::set_permissions(&host.directory, fs::Permissions::from_mode(0o700)));
    made.map_err(|error| failed(host, format!("{}: {error}", host.directory.display())))
}

/// Starts the host's first process.
pub(crate) async fn switch_on(host: &Host) -> Result<(), Refusal> {
    if processes::find(host, false).init.is_some() {
        return Ok(());
    }
    // What is left without a first process is not a host that works.
    processes::end(host, false).await?;
    let words = [
        "nsenter".to_owned(),
        format!("--net=/run/netns/{}", host.namespace),
        "unshare".to_owned(),
        "--mount".to_owned(),
        "--uts".to_owned(),
        "--pid".to_owned(),
        "--fork".to_owned(),
        "--mount-proc".to_owned(),
        program()?.display().to_string(),
        "dev-init".to_owned(),
        host.name.clone(),
    ];
    shell::start(&format!("{} was not switched on", host.name), &words, &[], &host.log("init"))?;
    let deadline = Instant::now() + INIT;
    loop {
        match processes::find(host, false).init {
            // Before it has a name and a /run of its own, nothing may enter.
            Some(init) if is_prepared(init.pid) => return Ok(()),
            _ if Instant::now() >= deadline => {
                return Err(failed(
                    host,
                    format!("its first process did not start; {}", shell::tail(&host.log("init"))),
                ));
            }
            _ => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Whether a host's `/run` is its own: the last thing its first process prepares.
fn is_prepared(init: i32) -> bool {
    Path::new(&format!("/proc/{init}/root/run/lock")).exists()
        && fs::read_to_string(format!("/proc/{init}/mounts"))
            .is_ok_and(|mounts| mounts.lines().filter(|line| line.starts_with("tmpfs /run tmpfs")).count() > 0)
}

/// Starts the host's Docker Engine and waits until it answers.
pub(crate) async fn start_engine(host: &Host) -> Result<(), Refusal> {
    let failed = |because: &str| {
        failed(host, format!("{because}; {}", shell::tail(&host.log("docker"))))
            .hint(format!("the whole log is {}", host.log("docker").display()))
    };
    if processes::find(host, false).engine.is_none() {
        // The machine's own settings (/etc/docker/daemon.json) are for the machine's own engine.
        let settings = host.directory.join("docker.json");
        fs::write(&settings, "{}\n").map_err(|error| failed(&format!("{}: {error}", settings.display())))?;
        let mut words = enter(host)?;
        words.extend(["dockerd", "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent"].map(str::to_owned));
        words.push(format!("/{CONTROL_GROUP}/{}", host.name));
        for (flag, path) in [("--config-file", &settings), ("--data-root", &host.directory.join("docker"))] {
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
        words.extend(["--host".to_owned(), format!("unix://{}", host.socket().display())]);
        shell::start(&format!("the Docker Engine of {} was not started", host.name), &words, &[], &host.log("docker"))?;
    }
    let (deadline, begun) = (Instant::now() + ENGINE, Instant::now() + BEGUN);
    while !engine_answers(&host.socket()).await {
        if Instant::now() >= begun && processes::find(host, false).engine.is_none() {
            return Err(failed("its Docker Engine ended"));
        }
        if Instant::now() >= deadline {
            return Err(failed(&format!("its Docker Engine did not answer within {} s", ENGINE.as_secs())));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Asks the engine whether it lives (`GET /_ping` of the Docker Engine API).
async fn engine_answers(socket: &Path) -> bool {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(Duration::from_secs(2), ask).await;
    answer.is_ok_and(|answer| {
        answer.is_ok_and(|answer| answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"))
    })
}

/// Starts the host's daemon, if it does not run.
pub(crate) fn start_daemon(host: &Host, plan: &Plan, how: Daemon<'_>) -> Result<(), Refusal> {
    if processes::find(host, plan.simulated).daemon.is_some() {
        return Ok(());
    }
    let mut words = if plan.simulated { Vec::new() } else { enter(host)? };
    words.push(program()?.display().to_string());
    words.push(if matches!(how, Daemon::Up) { "up" } else { "join" }.to_owned());
    words.extend(host.daemon(plan));
    // The token goes by the environment: a command line can be read by everyone on the machine.
    let environment: &[(&str, &str)] = match &how {
        Daemon::Up => &[],
        Daemon::Join(token) => &[("QUORATE_TOKEN", token)],
    };
    shell::start(&format!("the daemon of {} was not started", host.name), &words, environment, &host.log("daemon"))
}

/// The words that run a command on a host.
pub(crate) fn enter(host: &Host) -> Result<Vec<String>, Refusal> {
    let init = processes::find(host, false).init.ok_or_else(|| {
        Refusal::new(Reason::Unavailable, format!("nothing was run on {}", host.name), "the host is switched off")
            .hint(format!("`quorate dev start {}` switches it on", host.name))
    })?;
    Ok(["nsenter", "--target", &init.pid.to_string(), "--net", "--mount", "--uts", "--pid", "--"]
        .map(str::to_owned)
        .to_vec())
}

/// This very program: what the hosts run.
fn program() -> Result<PathBuf, Refusal> {
    std::env::current_exe().map_err(|error| {
        Refusal::new(Reason::Internal, "no host was switched on", format!("this program was not found: {error}"))
    })
}
