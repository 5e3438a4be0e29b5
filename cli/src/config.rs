//! The clusters a user knows: contexts, in `~/.config/quorate/config.toml`.
//!
//! A context holds a private key, so the file is the user's alone (0600) and appears whole or not at all.
//!
//! Invariant: what this file does not know it refuses; it never drops what another version wrote.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use quorate_proto::{
    ids::ClusterId,
    refusal::{Reason, Refusal},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The largest file, in bytes: some hundreds of contexts.
const LARGEST: u64 = 1 << 20;

/// How many endpoints a context keeps that the cluster no longer tells of.
const OTHERS: usize = 4;

/// All contexts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The one that is used if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A cluster, and who one is there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Where nodes were: `host:port`, tried in turn.
    pub(crate) endpoints: Vec<String>,
    /// The cluster's id.
    pub(crate) cluster: String,
    /// The user's private key and certificate, and the cluster's authorities, as PEM.
    pub(crate) identity: String,
    /// The namespace that is meant if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("endpoints", &self.endpoints)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Why contexts cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// Neither `XDG_CONFIG_HOME` nor `HOME` says where.
    #[error("neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
    /// Not readable or not writable.
    #[error("{path}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too large.
    #[error("{path} has {size} bytes, the limit is {LARGEST}")]
    TooLarge {
        /// Which file.
        path: String,
        /// How large.
        size: u64,
    },
    /// Others may read it.
    #[error("{path} holds private keys and others may read it (mode {mode:03o})")]
    Exposed {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Not what it should be.
    #[error("{path}:{line}: {message}")]
    Malformed {
        /// Which file.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// Where and why.
        message: String,
    },
}

impl ConfigError {
    /// As the user sees it.
    pub(crate) fn refusal(&self, what: &str) -> Refusal {
        let because = match self {
            Self::File { path, source } => format!("{path}: {source}"),
            other => other.to_string(),
        };
        let refusal = Refusal::new(Reason::Invalid, what, because);
        match self {
            Self::NoHome => refusal.hint("set HOME"),
            Self::Exposed { path, .. } => refusal.hint(format!("chmod 600 {path}")),
            Self::Malformed { path, .. } => {
                refusal.hint(format!("correct it, or move {path} away and make its contexts again"))
            }
            Self::File { .. } | Self::TooLarge { .. } => refusal,
        }
    }
}

/// Where the contexts of this user are kept.
///
/// # Errors
/// If the environment does not tell.
pub(crate) fn path(environment: impl Fn(&str) -> Option<String>) -> Result<PathBuf, ConfigError> {
    let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    Ok(base.ok_or(ConfigError::NoHome)?.join("quorate/config.toml"))
}

impl Config {
    /// Reads the contexts; a file that does not exist holds none.
    ///
    /// # Errors
    /// If it cannot be read, is beyond the limit, may be read by others, or is not understood.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let file = |source| ConfigError::File { path: name.clone(), source };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(file(error)),
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ConfigError::Exposed { path: name, mode });
        }
        if metadata.len() > LARGEST {
            return Err(ConfigError::TooLarge { path: name, size: metadata.len() });
        }
        let text = fs::read_to_string(path).map_err(file)?;
        toml::from_str(&text).map_err(|error| {
            // The message quotes the line it is about, which may be a key: say only where it is.
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError::Malformed { path: name, line, message: error.message().to_owned() }
        })
    }

    /// Writes the contexts, whole or not at all, for the user alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), ConfigError> {
        let name = path.display().to_string();
        let file = |source| ConfigError::File { path: name.clone(), source };
        let text = toml::to_string_pretty(self).map_err(|error| file(io::Error::other(error)))?;
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(file)?;
        let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(file)?; // 0600 from the start
        temporary.write_all(text.as_bytes()).and_then(|()| temporary.as_file().sync_all()).map_err(file)?;
        temporary.persist(path).map_err(|error| file(error.error))?;
        Ok(())
    }

    /// Changes the contexts, alone among all commands of this user; writes nothing if nothing changed.
    ///
    /// # Errors
    /// As [`Config::read`] and [`Config::write`].
    pub(crate) fn update<T>(path: &Path, change: impl FnOnce(&mut Self) -> T) -> Result<T, ConfigError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let file = |source| ConfigError::File { path: directory.display().to_string(), source };
        fs::create_dir_all(directory).map_err(file)?;
        let alone = File::open(directory).map_err(file)?;
        alone.lock().map_err(file)?; // until it is closed
        let mut config = Self::read(path)?;
        let before = config.clone();
        let changed = change(&mut config);
        if config != before {
            config.write(path)?;
        }
        Ok(changed)
    }

    /// The context that is meant.
    ///
    /// # Errors
    /// If there is none, or none of that name.
    pub(crate) fn choose(&self, named: Option<&str>) -> Result<(&str, &Context), Refusal> {
        let what = "no cluster was asked";
        let Some(name) = named.or(self.current.as_deref()) else {
            return Err(Refusal::new(Reason::NotFound, what, "no context is chosen")
                .hint("`quorate dev up` makes a cluster to try, `quorate up` founds one; `quorate context list` shows what there is"));
        };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok((name, context)),
            None => Err(Refusal::new(Reason::NotFound, what, format!("there is no context `{name}`"))
                .hint("`quorate context list` shows what there is")),
        }
    }
}

impl Context {
    /// Takes in where nodes are, as the one at `answered` has told.
    ///
    /// What was known before and is not told stays, behind the rest: the way from here may be another than the nodes' own, through a
    /// tunnel for one. If such a way was the one that led to an answer, it comes first.
    pub(crate) fn learn(&mut self, answered: &str, told: &[String]) {
        if told.is_empty() {
            return;
        }
        let others = self.endpoints.iter().filter(|endpoint| !told.contains(endpoint));
        let (first, last): (Vec<_>, Vec<_>) = others.cloned().partition(|endpoint| endpoint == answered);
        self.endpoints = first.into_iter().chain(told.iter().cloned()).chain(last.into_iter().take(OTHERS)).collect();
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// If the file holds no id.
    pub(crate) fn cluster_id(&self) -> Result<ClusterId, Refusal> {
        self.cluster.parse().map_err(|error| {
            Refusal::new(Reason::Invalid, "no cluster was asked", format!("the context's `cluster`: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Config {
        let context = Context {
            endpoints: vec!["10.99.0.1:7443".to_owned(), "10.99.0.2:7443".to_owned()],
            cluster: "0123456789abcdef0123456789abcdef".to_owned(),
            identity: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned(),
            namespace: None,
        };
        Config { current: Some("dev".to_owned()), contexts: [("dev".to_owned(), context)].into() }
    }

    #[test]
    fn contexts_are_read_back_as_written_and_are_the_users_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("quorate/config.toml");
        assert_eq!(Config::read(&path).unwrap(), Config::default());
        example().write(&path).unwrap();
        assert_eq!(Config::read(&path).unwrap(), example());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_a_way_out_and_without_its_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let said = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = Config::read(&path).unwrap_err().refusal("no cluster was asked").to_string();
            said.replace(&directory.path().display().to_string(), "DIR")
        };
        let all = [
            said("current = 5", 0o600),
            said("current = \"a\"\ncolour = \"red\"", 0o600),
            said("[contexts.dev]\nidentity = \"SECRET\" SECRET", 0o600),
            said("", 0o644),
            said(&"#".repeat(2 << 20), 0o600),
        ];
        assert!(all.iter().all(|said| !said.contains("SECRET")));
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn a_context_is_chosen_by_name_or_is_the_current_one() {
        let config = example();
        assert_eq!(config.choose(None).unwrap().0, "dev");
        insta::assert_snapshot!(
            [config.choose(Some("prod")).unwrap_err(), Config::default().choose(None).unwrap_err()].map(|refusal| refusal.to_string()).join("\n"),
            @r"
        error: no cluster was asked
          because: there is no context `prod`
          hint: `quorate context list` shows what there is
        error: no cluster was asked
          because: no context is chosen
          hint: `quorate dev up` makes a cluster to try, `quorate up` founds one; `quorate context list` shows what there is
        ");
    }

    #[test]
    fn a_context_learns_where_nodes_are_and_keeps_its_own_way_to_them() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let learnt = |known: &str, answered: &str, told: &str| {
            let mut context = example().contexts.remove("dev").unwrap();
            context.endpoints = words(known);
            context.learn(answered, &words(told));
            context.endpoints.join(" ")
        };
        assert_eq!(learnt("n1", "n1", "n1 n2 n3"), "n1 n2 n3");
        assert_eq!(learnt("n1 n2 n3", "n2", "n1 n2 n3"), "n1 n2 n3");
        assert_eq!(learnt("n1 n2 n3", "n2", "n2 n4"), "n2 n4 n1 n3", "n1 may come back, and is asked last");
        assert_eq!(learnt("tunnel", "tunnel", "n1 n2"), "tunnel n1 n2");
        assert_eq!(learnt("tunnel n1 n2", "n2", "n1 n2"), "n1 n2 tunnel");
        assert_eq!(learnt("a b c d e f", "n1", "n1"), "n1 a b c d");
        assert_eq!(learnt("n1", "n1", ""), "n1");
    }

    #[test]
    fn several_commands_at_once_lose_none_of_their_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        example().write(&path).unwrap();
        let add = |name: String| {
            Config::update(&path, |config| config.contexts.insert(name, example().contexts["dev"].clone())).unwrap()
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..10).for_each(|turn| drop(add(format!("{thread}-{turn}")))));
            }
        });
        assert_eq!(Config::read(&path).unwrap().contexts.len(), 41);
    }

    #[test]
    fn the_file_is_where_the_environment_says() {
        let with = |xdg: &'static str, home: &'static str| {
            path(move |name| Some(if name == "HOME" { home } else { xdg }.to_owned()))
                .map(|path| path.display().to_string())
        };
        assert_eq!(with("/x", "/h").unwrap(), "/x/quorate/config.toml");
        assert_eq!(with("", "/h").unwrap(), "/h/.config/quorate/config.toml");
        assert!(with("", "").is_err());
    }
}
