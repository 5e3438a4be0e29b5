//! Probes: when to check a container next, and what its answers add up to (pure).
//!
//! Numbers and meaning are the kubelet's: the startup probe holds the others back; a container whose startup or liveness probe failed
//! too often is restarted; one whose readiness probe fails gets no traffic.
//!
//! Invariant: one check of a probe is under way at a time; an answer that comes after the container was replaced changes nothing.

use std::time::Duration;

use quorate_proto::{
    k8s::{
        api::core::v1::{self as core, Container},
        apimachinery::pkg::util::intstr::IntOrString,
    },
    world::Instant,
};

/// How soon a container that was never ready is checked again, where its period is longer: a start is not to wait for a period.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// One way to ask a container how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// GET; well if the status is 200 to 399.
    Http {
        /// Instead of the pod's address.
        host: Option<String>,
        /// The port.
        port: u16,
        /// The path, with its query.
        path: String,
        /// Headers to send.
        headers: Vec<(String, String)>,
        /// Well whatever the status is.
        any_status: bool,
    },
    /// Well if the port accepts a connection.
    Tcp {
        /// Instead of the pod's address.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// Well if the command, run in the container, exits with 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// What this version cannot check is never well; the text says why.
    Unsupported(String),
}

/// What a probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Whether it has begun.
    Startup,
    /// Whether it lives.
    Liveness,
    /// Whether it may get traffic.
    Readiness,
}

impl Purpose {
    /// As messages name it: `Readiness probe failed`.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Same,
    /// The probe passes now.
    Passes,
    /// The probe fails now.
    Fails,
}

/// One probe of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    check: Check,
    purpose: Purpose,
    period: Duration,
    timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    passes: bool,
    passed_once: bool,
    /// Answers of the same kind in a row.
    run: (bool, u32),
    next: Instant,
    under_way: bool,
}

impl Probe {
    /// A probe of a container that runs since `started`; `None` if the container has none for this purpose.
    #[must_use]
    pub(crate) fn new(container: &Container, purpose: Purpose, started: Instant) -> Option<Self> {
        let written = match purpose {
            Purpose::Startup => &container.startup_probe,
            Purpose::Liveness => &container.liveness_probe,
            Purpose::Readiness => &container.readiness_probe,
        };
        let written = written.as_ref()?;
        let seconds = |given: Option<i32>, default: u64| {
            Duration::from_secs(given.and_then(|given| u64::try_from(given).ok()).unwrap_or(default))
        };
        let count = |given: Option<i32>, default: u32| {
            given.and_then(|given| u32::try_from(given).ok()).filter(|given| *given > 0).unwrap_or(default)
        };
        Some(Self {
            check: check(container, written),
            purpose,
            period: seconds(written.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(written.timeout_seconds, 1).max(Duration::from_secs(1)),
            success_threshold: count(written.success_threshold, 1),
            failure_threshold: count(written.failure_threshold, 3),
            passes: purpose == Purpose::Liveness,
            passed_once: false,
            run: (false, 0),
            next: started + seconds(written.initial_delay_seconds, 0),
            under_way: false,
        })
    }

    /// Whether the container is taken to be well.
    #[must_use]
    pub(crate) const fn passes(&self) -> bool {
        self.passes
    }

    /// Takes over what was known before the agent restarted.
    pub(crate) const fn adopt(&mut self, passes: bool) {
        self.passes = passes;
        self.passed_once = passes;
    }

    /// When to check next; `None` while a check is under way.
    #[must_use]
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.under_way).then_some(self.next)
    }

    /// Begins a check.
    pub(crate) fn begin(&mut self) -> (Check, Duration) {
        self.under_way = true;
        (self.check.clone(), self.timeout)
    }

    /// Takes an answer.
    pub(crate) fn answer(&mut self, well: bool, now: Instant) -> Verdict {
        self.under_way = false;
        self.run = if self.run.0 == well { (well, self.run.1.saturating_add(1)) } else { (well, 1) };
        self.passed_once |= well;
        let impatient = self.purpose != Purpose::Liveness && !self.passed_once;
        self.next = now + if impatient { self.period.min(IMPATIENCE) } else { self.period };
        // A startup probe's failures are counted in its own periods: looking more often must not make it give up sooner.
        let threshold = match (well, self.purpose) {
            (true, _) => self.success_threshold,
            (false, Purpose::Startup) => {
                let every = self.period.min(IMPATIENCE).as_millis().max(1);
                let more = u32::try_from(self.period.as_millis() / every).unwrap_or(1);
                self.failure_threshold.saturating_mul(more)
            }
            (false, _) => self.failure_threshold,
        };
        if self.run.1 < threshold {
            return Verdict::Same;
        }
        let newly = self.passes != well || (!well && self.purpose != Purpose::Readiness && self.run.1 == threshold);
        self.passes = well;
        match (newly, well) {
            (false, _) => Verdict::Same,
            (true, true) => Verdict::Passes,
            (true, false) => Verdict::Fails,
        }
    }

    /// A check that was not made (the runtime was away) is made again, and counts for nothing.
    pub(crate) fn undecided(&mut self, now: Instant) {
        self.under_way = false;
        self.next = now + self.period;
    }
}

/// How a running container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    startup: Option<Probe>,
    liveness: Option<Probe>,
    readiness: Option<Probe>,
}

impl Health {
    /// Of a container that runs since `started`.
    #[must_use]
    pub(crate) fn new(container: &Container, started: Instant) -> Self {
        let probe = |purpose| Probe::new(container, purpose, started);
        Self {
            startup: probe(Purpose::Startup),
            liveness: probe(Purpose::Liveness),
            readiness: probe(Purpose::Readiness),
        }
    }

    /// Takes over what was known of this very container before the agent restarted.
    pub(crate) const fn adopt(&mut self, started: bool, ready: bool) {
        if let Some(probe) = &mut self.startup {
            probe.adopt(started);
        }
        if let Some(probe) = &mut self.readiness {
            probe.adopt(ready);
        }
    }

    /// Whether the container has begun.
    #[must_use]
    pub(crate) fn started(&self) -> bool {
        self.startup.as_ref().is_none_or(Probe::passes)
    }

    /// Whether the container may get traffic.
    #[must_use]
    pub(crate) fn ready(&self) -> bool {
        self.started() && self.readiness.as_ref().is_none_or(Probe::passes)
    }

    /// The probes that are due, and when the next one is.
    #[must_use]
    pub(crate) fn due(&self, now: Instant) -> (Vec<Purpose>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for probe in self.active() {
            match probe.due() {
                Some(at) if at <= now => due.push(probe.purpose),
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        (due, next)
    }

    /// The startup probe while it has not passed, the others afterwards.
    fn active(&self) -> impl Iterator<Item = &Probe> {
        let started = self.started();
        let startup = self.startup.iter().filter(move |_| !started);
        startup.chain(self.liveness.iter().chain(&self.readiness).filter(move |_| started))
    }

    /// A probe, by its purpose.
    pub(crate) const fn probe(&mut self, purpose: Purpose) -> Option<&mut Probe> {
        match purpose {
            Purpose::Startup => self.startup.as_mut(),
            Purpose::Liveness => self.liveness.as_mut(),
            Purpose::Readiness => self.readiness.as_mut(),
        }
    }
}

fn check(container: &Container, probe: &core::Probe) -> Check {
    let port = |written: &IntOrString| port(container, written);
    if let Some(exec) = &probe.exec {
        return Check::Exec { command: exec.command.clone().unwrap_or_default() };
    }
    if let Some(get) = &probe.http_get {
        return http(container, get, false);
    }
    if let Some(tcp) = &probe.tcp_socket {
        return match port(&tcp.port) {
            Ok(port) => Check::Tcp { host: tcp.host.clone(), port },
            Err(why) => Check::Unsupported(why),
        };
    }
    Check::Unsupported("only httpGet, tcpSocket and exec are supported".to_owned())
}

/// A GET, well if its status is 200 to 399, or any.
pub(crate) fn http(container: &Container, get: &core::HTTPGetAction, any_status: bool) -> Check {
    if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
        return Check::Unsupported("httpGet with scheme HTTPS is not supported".to_owned());
    }
    let path = get.path.clone().unwrap_or_default();
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect();
    match port(container, &get.port) {
        Ok(port) => Check::Http { host: get.host.clone(), port, path, headers, any_status },
        Err(why) => Check::Unsupported(why),
    }
}

fn port(container: &Container, written: &IntOrString) -> Result<u16, String> {
    let number = match written {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    port.ok_or_else(|| match written {
        IntOrString::Int(number) => format!("{number} is no port"),
        IntOrString::String(name) => format!("the container has no port named `{name}`"),
    })
}

#[cfg(test)]
mod tests;
