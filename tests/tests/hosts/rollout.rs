//! A service goes on answering while its pods are replaced, fewer and more.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use quorate_tests::hosts::{
    cluster::{Cluster, HOSTS, PATIENCE},
    names, pods,
    wait::{now, pass, seconds, until},
};

/// How many requests are made at least; `REQUESTS=50000` makes more.
const REQUESTS: usize = 10_000;

/// On every host, so many clients ask so often: 200 requests a second.
const CLIENTS: usize = 4;
const EVERY: Duration = Duration::from_millis(20);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A page of the service, on a connection of its own.
fn fetch(service: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&service, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") && answer.contains("hello from ") {
        true => Ok(()),
        false => Err(io::Error::other(format!("no page: {answer:?}"))),
    }
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    failures: Mutex<Vec<String>>,
    enough: AtomicBool,
}

impl Seen {
    fn ask(&self, host: &str, service: SocketAddr) {
        let mut due = now();
        while !self.enough.load(Ordering::Relaxed) {
            let fetched = fetch(service);
            self.requests.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = fetched {
                self.failures.lock().unwrap().push(format!("{host}, request {}: {error}", self.count()));
            }
            due += EVERY;
            pass(due.saturating_duration_since(now()));
        }
    }

    fn count(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Lets the clients end, also when the story fails.
struct Enough<'a>(&'a Seen);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_request_is_lost_while_pods_are_replaced_and_become_fewer_and_more() {
    let wanted = std::env::var("REQUESTS").ok().and_then(|wanted| wanted.parse().ok()).unwrap_or(REQUESTS);
    let cluster = Cluster::up();
    cluster.load_images();
    let deployment = |replicas, release: usize| {
        let text = pods::deployment("web", replicas);
        // Half of the grace is for the nodes to forget a pod.
        let text = text.replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 4");
        text.replace(
            "      labels:\n        app: web\n    spec",
            &format!("      labels:\n        app: web\n        release: r{release}\n    spec"),
        )
    };
    cluster.apply(&(pods::service("web").trim_start().to_owned() + "---" + &deployment(10, 0)));
    until("ten ready pods", PATIENCE, || pods::ready(&cluster, "web", 10, &HOSTS));
    let shown = cluster.json("get service web").unwrap();
    let address = shown["spec"]["clusterIP"].as_str().unwrap();
    let service: SocketAddr = format!("{address}:80").parse().unwrap();
    for host in HOSTS {
        until("a page on every host", PATIENCE, || {
            names::on(host, || fetch(service)).map_err(|error| error.to_string())
        });
    }

    let seen = Seen::default();
    let begun = now();
    thread::scope(|scope| {
        for host in HOSTS {
            for _ in 0..CLIENTS {
                let seen = &seen;
                scope.spawn(move || names::on(host, || seen.ask(host, service)));
            }
        }
        let _enough = Enough(&seen);
        let mut release = 0;
        while release == 0 || seen.count() < wanted {
            release += 1;
            for replicas in [10, 5, 10] {
                cluster.apply(&deployment(replicas, release));
                until("the pods of this release, all ready, and no others", PATIENCE, || {
                    let pods = pods::ready(&cluster, &format!("web,release=r{release}"), replicas as usize, &HOSTS)?;
                    let all = pods::of(&cluster, "web")?;
                    if all.len() == pods.len() { Ok(()) } else { Err(format!("{all:#?}")) }
                });
            }
        }
    });
    let (count, failures) = (seen.count(), seen.failures.into_inner().unwrap());
    println!("{count} requests in {}, {} lost", seconds(begun.elapsed()), failures.len());
    assert!(failures.is_empty(), "{} of {count} requests were lost:\n{}", failures.len(), failures.join("\n"));
}
