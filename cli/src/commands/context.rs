//! `quorate context`: which clusters this user knows, and which one is meant.
//!
//! Invariant: nothing secret is printed.

use std::path::Path;

use quorate_proto::refusal::Refusal;

use crate::{
    args::Context,
    config::Config,
    failure::Failure,
    output::{Aligned, Console},
};

pub(crate) fn run(path: &Path, arguments: Context, console: &mut Console<'_>) -> Result<(), Failure> {
    match arguments {
        Context::List => {
            let config = Config::read(path).map_err(|error| error.refusal("contexts were not read"))?;
            list(&config, console)
        }
        Context::Use { name } => {
            let chosen = Config::update(path, |config| {
                config.choose(Some(&name))?;
                config.current = Some(name.clone());
                Ok::<_, Refusal>(())
            });
            chosen.map_err(|error| error.refusal("the context was not chosen"))??;
            writeln!(console.out, "Switched to context \"{name}\".")?;
            Ok(())
        }
    }
}

fn list(config: &Config, console: &mut Console<'_>) -> Result<(), Failure> {
    if config.contexts.is_empty() {
        writeln!(console.err, "No contexts found. `quorate dev up` makes a cluster to try, `quorate up` founds one.")?;
        return Ok(());
    }
    let mut rows = vec![["CURRENT", "NAME", "CLUSTER", "ENDPOINTS"].map(str::to_owned).to_vec()];
    for (name, context) in &config.contexts {
        let current = if config.current.as_ref() == Some(name) { "*" } else { "" };
        rows.push(vec![current.to_owned(), name.clone(), context.cluster.clone(), context.endpoints.join(",")]);
    }
    Aligned::default().print(&rows, console.out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(path: &Path, arguments: Context) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = run(path, arguments, &mut Console { out: &mut out, err: &mut err });
        let said = result.err().map(|failure| format!("{failure}\n")).unwrap_or_default();
        String::from_utf8([out, err, said.into_bytes()].concat()).unwrap()
    }

    #[test]
    fn a_context_is_listed_and_chosen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let mut printed = typed(&path, Context::List);
        let context = |port| crate::config::Context {
            endpoints: vec![format!("10.99.0.1:{port}")],
            cluster: "0123456789abcdef0123456789abcdef".to_owned(),
            identity: "SECRET".to_owned(),
            namespace: None,
        };
        let contexts = [("dev".to_owned(), context(7443)), ("shop".to_owned(), context(7444))].into();
        Config { current: Some("dev".to_owned()), contexts }.write(&path).unwrap();
        for arguments in [
            Context::List,
            Context::Use { name: "shop".to_owned() },
            Context::List,
            Context::Use { name: "prod".to_owned() },
        ] {
            printed.push_str(&typed(&path, arguments));
        }
        insta::assert_snapshot!(printed);
    }
}
