//! Where a cluster on one machine is kept, and what is written down about it.
//!
//! Invariant: the plan is written before the first thing of it is made, and a command that changes the cluster holds the place alone.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use quorate_proto::refusal::{Reason, Refusal};

use super::{
    plan::{Host, Plan},
    remains::Remains,
};

/// Where everything of the cluster is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) base: PathBuf,
    /// Whether it is the simulated cluster's.
    pub(crate) simulated: bool,
}

/// Held while the cluster is changed.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl Place {
    /// The place of the cluster.
    ///
    /// # Errors
    /// If the environment does not tell, or the real one is asked for by someone who is not root.
    pub(crate) fn new(simulated: bool, what: &str) -> Result<Self, Refusal> {
        if simulated {
            let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
            let state = state.ok_or_else(|| {
                Refusal::new(Reason::Invalid, what, "neither XDG_STATE_HOME nor HOME is set").hint("set HOME")
            })?;
            return Ok(Self { base: state.join("quorate-dev"), simulated });
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Refusal::new(
                Reason::Forbidden,
                what,
                "hosts are made of network namespaces and Docker Engines, which only root may make",
            )
            .hint("use sudo, or --simulated, which needs neither root nor Docker"));
        }
        Ok(Self { base: PathBuf::from("/var/lib/quorate-dev"), simulated })
    }

    /// The place of whichever cluster there is, or of which anything is left, the real one first.
    pub(crate) async fn existing(what: &str) -> Result<Self, Refusal> {
        match Self::new(false, what) {
            Ok(place) if place.base.exists() || !Remains::find(&place.base).await.is_empty() => Ok(place),
            real => match Self::new(true, what) {
                Ok(place) if place.base.exists() => Ok(place),
                _ => real,
            },
        }
    }

    fn record(&self) -> PathBuf {
        self.base.join("cluster.toml")
    }

    fn failed(&self, what: &str, path: &Path, error: &io::Error) -> Refusal {
        Refusal::new(Reason::Internal, what, format!("{}: {error}", path.display()))
    }

    /// Makes the place and keeps others from changing the cluster meanwhile.
    ///
    /// # Errors
    /// If someone else does.
    pub(crate) fn hold(&self, what: &str) -> Result<Held, Refusal> {
        let failed = |error: io::Error| self.failed(what, &self.base, &error);
        fs::create_dir_all(&self.base).map_err(failed)?;
        let file = File::open(&self.base).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Held(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Refusal::new(Reason::Conflict, what, "another `quorate dev` is changing the cluster")
                    .hint("wait until it is done"))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// What was planned; `None` if nothing was.
    ///
    /// # Errors
    /// If it is not understood.
    pub(crate) fn plan(&self, what: &str) -> Result<Option<Plan>, Refusal> {
        let path = self.record();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(what, &path, &error)),
        };
        toml::from_str(&text).map(Some).map_err(|error| {
            let because = format!("{}: {}", path.display(), error.message());
            Refusal::new(Reason::Invalid, what, because).hint("`quorate dev down` removes the cluster all the same")
        })
    }

    /// The plan of the cluster there is.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn planned(&self, what: &str) -> Result<Plan, Refusal> {
        self.plan(what)?.ok_or_else(|| {
            let up = if self.simulated { "quorate dev up --simulated" } else { "quorate dev up" };
            Refusal::new(Reason::NotFound, what, "there is no such cluster").hint(format!("`{up}` makes it"))
        })
    }

    /// One of its hosts.
    ///
    /// # Errors
    /// If there is none of that name.
    pub(crate) fn host(&self, plan: &Plan, name: &str, what: &str) -> Result<Host, Refusal> {
        let hosts = plan.hosts(&self.base);
        let names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
        hosts.into_iter().find(|host| host.name == name).ok_or_else(|| {
            Refusal::new(Reason::NotFound, what, format!("there is no host `{name}`"))
                .hint(format!("there are {}", names.join(", ")))
        })
    }

    /// Writes the plan down.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) fn write(&self, plan: &Plan, what: &str) -> Result<(), Refusal> {
        let path = self.record();
        let text = toml::to_string(plan).map_err(|error| self.failed(what, &path, &io::Error::other(error)))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.base).map_err(|error| self.failed(what, &path, &error))?;
        io::Write::write_all(&mut file, text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .and_then(|()| file.persist(&path).map(|_| ()).map_err(|error| error.error))
            .map_err(|error| self.failed(what, &path, &error))
    }
}
