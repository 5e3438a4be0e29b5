//! Names of others: asked of the host's resolvers, cached.
//!
//! Invariant: a name is asked as it was given, with no search list of the host's behind it; no question is passed to ourselves; and
//! beyond the limit of questions under way the answer is a failure at once, so that slow resolvers do not fill the memory.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_net::{DnsError, NetError, runtime::TokioRuntimeProvider};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, Record, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
};
use tokio::{sync::Semaphore, time::timeout};

use crate::answer::Answer;

/// How long one resolver may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a question may take in all: clients of ours ask again after 2 s, and give up after 4.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long "no such name" is believed, whatever its zone says.
const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// The resolvers to ask.
#[derive(Clone)]
pub(crate) struct Upstream {
    resolver: TokioResolver,
    under_way: Arc<Semaphore>,
}

impl Upstream {
    /// Sets up asking these resolvers; `None` if there are none.
    pub(crate) fn new(
        resolvers: &[SocketAddr],
        cache_size: u64,
        max_under_way: usize,
    ) -> Result<Option<Self>, NetError> {
        if resolvers.is_empty() {
            return Ok(None);
        }
        let servers = resolvers.iter().map(|at| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = at.port();
                connection
            });
            NameServerConfig::new(at.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = ATTEMPT;
        options.attempts = 1;
        options.cache_size = cache_size;
        options.negative_max_ttl = Some(NEGATIVE_TTL);
        options.try_tcp_on_error = true;
        // The host's own file is the host's: a pod gets its own.
        options.use_hosts_file = ResolveHosts::Never;
        let under_way = Arc::new(Semaphore::new(max_under_way));
        Ok(Some(Self { resolver: builder.build()?, under_way }))
    }

    /// Asks for records of one type under a name.
    pub(crate) async fn ask(&self, name: &Name, kind: RecordType) -> Answer {
        let Ok(_permit) = self.under_way.try_acquire() else {
            tracing::warn!(%name, "too many names outside the cluster are being resolved at once");
            return Answer::empty(ResponseCode::ServFail);
        };
        let mut name = name.clone();
        name.set_fqdn(true);
        match timeout(DEADLINE, self.resolver.lookup(name.clone(), kind)).await {
            Ok(Ok(found)) => Answer { answers: found.answers().to_vec(), ..Answer::default() },
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(nothing)))) => Answer {
                code: nothing.response_code,
                authorities: nothing.soa.into_iter().map(|soa| Record::into_record_of_rdata(*soa)).collect(),
                ..Answer::default()
            },
            Ok(Err(error)) => {
                tracing::debug!(%name, %kind, %error, "a name outside the cluster was not resolved");
                Answer::empty(ResponseCode::ServFail)
            }
            Err(_) => {
                tracing::debug!(%name, %kind, "a name outside the cluster was not resolved in {DEADLINE:?}");
                Answer::empty(ResponseCode::ServFail)
            }
        }
    }
}
