//! Which nodes a command asks, and as whom: those of a context, or the one on this machine.
//!
//! Invariant: the socket of this machine is asked unless a context is named or known: who keeps contexts means one of them.

use quorate_proto::refusal::{Reason, Refusal};

use crate::{
    args::Global,
    config::{Config, Context},
    transport::local,
};

/// Whom to ask.
#[derive(Debug)]
pub(crate) struct Chosen<'a> {
    /// Says who asks; the socket of this machine needs none.
    pub(crate) context: Option<&'a Context>,
    /// The context's name.
    pub(crate) name: Option<&'a str>,
    /// `host:port` or `unix:///path`, at least one.
    pub(crate) endpoints: Vec<String>,
}

/// Chooses by what was typed, what contexts there are, and whether a node runs on this machine.
///
/// # Errors
/// If nothing says which cluster is meant.
pub(crate) fn choose<'a>(global: &Global, config: &'a Config, is_node: bool) -> Result<Chosen<'a>, Refusal> {
    let named = global.context.as_deref().filter(|name| !name.is_empty()); // as a variable of the environment, empty is not set
    let only_sockets = global.endpoint.iter().all(|endpoint| endpoint.starts_with(local::SCHEME));
    let (name, context) = match config.choose(named) {
        Ok(chosen) => chosen,
        Err(_) if named.is_none() && !global.endpoint.is_empty() && only_sockets => {
            return Ok(Chosen { context: None, name: None, endpoints: global.endpoint.clone() });
        }
        Err(_) if named.is_none() && global.endpoint.is_empty() && config.contexts.is_empty() && is_node => {
            let endpoints = vec![format!("{}{}", local::SCHEME, local::SOCKET)];
            return Ok(Chosen { context: None, name: None, endpoints });
        }
        Err(refusal) => return Err(refusal),
    };
    let endpoints = if global.endpoint.is_empty() { &context.endpoints } else { &global.endpoint };
    if endpoints.is_empty() {
        return Err(Refusal::new(Reason::Invalid, "no cluster was asked", "the context names no endpoints")
            .hint("name a node with --endpoint HOST:PORT"));
    }
    Ok(Chosen { context: Some(context), name: Some(name), endpoints: endpoints.clone() })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Arguments;

    fn chosen(line: &str, config: &Config, is_node: bool) -> String {
        let global = Arguments::try_parse_from(line.split(' ')).unwrap().global;
        match choose(&global, config, is_node) {
            Ok(chosen) => {
                let who = if chosen.context.is_some() { "the context's user" } else { "root" };
                format!("{} as {who}", chosen.endpoints.join(", "))
            }
            Err(refusal) => refusal.to_string(),
        }
    }

    fn one_context(endpoints: &[&str], current: Option<&str>) -> Config {
        let context = Context {
            endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
            cluster: "0123456789abcdef0123456789abcdef".to_owned(),
            identity: String::new(),
            namespace: None,
        };
        Config { current: current.map(str::to_owned), contexts: [("dev".to_owned(), context)].into() }
    }

    #[test]
    fn on_a_node_without_a_context_the_node_itself_is_asked() {
        let (none, dev) = (Config::default(), one_context(&["n1:7443", "n2:7443"], Some("dev")));
        let not_chosen = one_context(&["n1:7443"], None);
        let local = "unix:///run/quorate/api.sock as root";
        assert_eq!(chosen("quorate get nodes", &none, true), local);
        assert_eq!(chosen("quorate get nodes --context=", &none, true), local);
        assert_eq!(chosen("quorate get nodes", &dev, true), "n1:7443, n2:7443 as the context's user");
        assert_eq!(chosen("quorate status --endpoint n3:7443", &dev, true), "n3:7443 as the context's user");
        assert_eq!(chosen("quorate status --endpoint unix:///a.sock", &none, false), "unix:///a.sock as root");
        insta::assert_snapshot!(
            [
                chosen("quorate get nodes", &none, false),
                chosen("quorate get nodes", &not_chosen, true),
                chosen("quorate get nodes --context prod", &none, true),
                chosen("quorate get nodes --endpoint n1:7443", &none, true),
                chosen("quorate get nodes", &one_context(&[], Some("dev")), true),
            ]
            .join("\n")
        );
    }
}
