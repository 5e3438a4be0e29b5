use quorate_proto::{ids::RequestId, txn::Revision};

use super::*;

/// What a fake node does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Node {
    /// Answers, with its own number as the revision.
    Up,
    /// Answers after so many milliseconds.
    Slow(u64),
    /// Takes the request and is never heard of again: its host lost power.
    Vanished,
    /// Closes the connection without an answer.
    Crashed,
    /// Has no leader.
    CutOff,
    /// Nobody is there: what is sent gets no answer.
    Off,
    /// Belongs to another cluster.
    Stranger,
}

/// Nodes that tests switch on and off, and what they were asked.
#[derive(Default)]
struct World {
    nodes: ValueMutex<Vec<Node>>,
    asked: ValueMutex<Vec<(usize, Request)>>,
    dialled: ValueMutex<Vec<usize>>,
}

struct Fake {
    index: usize,
    world: Arc<World>,
}

impl Fake {
    fn node(&self) -> Node {
        self.world.nodes.lock().unwrap()[self.index]
    }
}

#[async_trait]
impl Endpoint for Fake {
    fn name(&self) -> &str {
        ["n0", "n1", "n2"][self.index]
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, Refusal> {
        self.world.dialled.lock().unwrap().push(self.index);
        match self.node() {
            Node::Off => {
                sleep(Duration::from_secs(3)).await; // a handshake that nobody answers
                Err(unanswered(self.name()))
            }
            Node::Stranger => Err(Refusal::new(Reason::Unauthorized, WHAT, format!("{}: a stranger", self.name()))),
            _ => Ok(Arc::new(Self { index: self.index, world: Arc::clone(&self.world) })),
        }
    }
}

#[async_trait]
impl Connection for Fake {
    async fn ask(&self, request: &Request) -> Result<Answers, Refusal> {
        self.world.asked.lock().unwrap().push((self.index, request.clone()));
        let objects = Answer::Objects { revision: Revision(self.index as u64), objects: Vec::new() };
        Ok(match self.node() {
            Node::Up => stream::iter([Ok(objects), Ok(Answer::End)]).boxed(),
            Node::Slow(after) => {
                let later = stream::once(async move {
                    sleep(Duration::from_millis(after)).await;
                    Ok(objects)
                });
                later.boxed()
            }
            Node::Vanished | Node::Off | Node::Stranger => stream::pending().boxed(),
            Node::Crashed => stream::iter([Err(lost(&std::io::Error::other("reset")))]).boxed(),
            Node::CutOff => {
                let refusal = Refusal::new(Reason::Unavailable, "nothing was read", "there is no leader");
                stream::iter([Ok(Answer::Refused(refusal))]).boxed()
            }
        })
    }

    fn is_open(&self) -> bool {
        self.node() != Node::Crashed
    }
}

impl World {
    fn of(nodes: &[Node]) -> Arc<Self> {
        Arc::new(Self { nodes: ValueMutex::new(nodes.to_vec()), ..Self::default() })
    }

    fn client(self: &Arc<Self>) -> Client {
        let count = self.nodes.lock().unwrap().len();
        self.client_of(0..count)
    }

    /// A client that knows only these nodes.
    fn client_of(self: &Arc<Self>, known: std::ops::Range<usize>) -> Client {
        let world = Arc::clone(self);
        let endpoint = move |index| Arc::new(Fake { index, world: Arc::clone(&world) }) as Arc<dyn Endpoint>;
        let nodes: Vec<_> = known.map(&endpoint).collect();
        let more = move |name: &str| Some(endpoint(name.strip_prefix('n')?.parse().ok()?));
        let nodes = AnyNode::new(nodes, Box::new(more), REACH);
        Client::new(Arc::new(nodes), Arc::new(SystemRandom), Duration::from_secs(30))
    }

    fn set(&self, index: usize, node: Node) {
        self.nodes.lock().unwrap()[index] = node;
    }

    /// Which nodes were asked, in order.
    fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().iter().map(|(index, _)| *index).collect()
    }
}

/// Which node answered, and after how many milliseconds.
async fn answered(client: &Client) -> (Result<u64, Refusal>, u128) {
    let begun = Instant::now();
    let answer = client.ask(change()).await.map(|answer| match answer {
        Answer::Objects { revision, .. } => revision.0,
        other => panic!("{other:?}"),
    });
    (answer, begun.elapsed().as_millis())
}

fn change() -> Request {
    Request::RevokeToken { request: RequestId(7), id: "k".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_vanished_while_it_was_asked_costs_a_second_and_a_half() {
    let world = World::of(&[Node::Vanished, Node::Up, Node::Up]);
    let client = world.client();
    let (answer, after) = answered(&client).await;
    assert_eq!((answer, after / 100), (Ok(1), 15));
    // Both were asked the very same, by whose id the cluster does it once.
    assert_eq!(*world.asked.lock().unwrap(), [(0, change()), (1, change())]);

    // The next request goes to the node that answered.
    let (answer, after) = answered(&client).await;
    assert_eq!((answer, after), (Ok(1), 0));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_off_costs_a_moment() {
    let (answer, after) = answered(&World::of(&[Node::Off, Node::Off, Node::Up]).client()).await;
    assert_eq!(answer, Ok(2));
    assert!(after < 400, "{after} ms");
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_is_still_heard_while_others_are_asked() {
    let world = World::of(&[Node::Slow(5000), Node::Vanished, Node::Vanished]);
    let (answer, after) = answered(&world.client()).await;
    assert_eq!((answer, after / 1000), (Ok(0), 5));
    assert_eq!(world.asked(), [0, 1, 2], "each once");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_crashes_or_is_cut_off_gives_way_to_the_next() {
    for node in [Node::Crashed, Node::CutOff] {
        let world = World::of(&[node, Node::Up, Node::Up]);
        let (answer, after) = answered(&world.client()).await;
        assert_eq!(answer, Ok(1));
        assert!(after < 400, "{after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn one_connection_carries_many_requests_also_at_once() {
    let world = World::of(&[Node::Up, Node::Up]);
    let client = world.client();
    let (one, two) = tokio::join!(answered(&client), answered(&client));
    assert_eq!((one.0, two.0, answered(&client).await.0), (Ok(0), Ok(0), Ok(0)));
    assert_eq!(*world.dialled.lock().unwrap(), [0]);
}

#[tokio::test(start_paused = true)]
async fn nobody_reachable_is_told_within_five_seconds_with_every_endpoint() {
    let (answer, after) = answered(&World::of(&[Node::Off, Node::Off, Node::Off]).client()).await;
    assert!(after < 5000, "{after} ms");
    let refusal = answer.unwrap_err();
    assert_eq!(refusal.exit_code(), 3);
    insta::assert_snapshot!(refusal);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_only_learnt_of_is_asked_when_the_one_that_was_known_is_lost() {
    let world = World::of(&[Node::Up, Node::Up, Node::Up]);
    let client = world.client_of(0..1);
    assert_eq!(client.learn(&[]), None, "nobody has answered");
    assert_eq!(answered(&client).await.0, Ok(0));
    assert_eq!(client.learn(&["n0".to_owned(), "n2".to_owned()]), Some("n0".to_owned()));
    world.set(0, Node::Crashed);
    assert_eq!((answered(&client).await.0, client.learn(&[])), (Ok(2), Some("n2".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_within_that_time_is_reached() {
    let world = World::of(&[Node::Off]);
    let client = world.client();
    let back = async {
        sleep(Duration::from_millis(500)).await;
        world.set(0, Node::Up);
    };
    assert_eq!(tokio::join!(answered(&client), back).0.0, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn no_quorum_is_waited_for_as_long_as_an_answer_may_come() {
    let (answer, after) = answered(&World::of(&[Node::CutOff, Node::CutOff]).client()).await;
    assert_eq!(answer.unwrap_err().because, "there is no leader");
    assert!(after > 25_000, "{after} ms");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_named_at_once_if_nobody_else_answers() {
    let (answer, after) = answered(&World::of(&[Node::Stranger, Node::Stranger]).client()).await;
    let refusal = answer.unwrap_err();
    assert_eq!((refusal.reason, refusal.because.as_str()), (Reason::Unauthorized, "n0: a stranger; n1: a stranger"));
    assert!(after < 500, "{after} ms");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_no_failure() {
    let world = World::of(&[Node::Vanished, Node::Vanished]);
    let mut answers = world.client().follow(&change()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(600), answers.next()).await.is_err(), "it waits on");
    assert_eq!(world.asked(), [0, 1], "each once");
}

/// A daemon at a socket that answers every connection's one request.
async fn serve_once(listener: tokio::net::UnixListener) -> Request {
    let (mut stream, _) = listener.accept().await.unwrap();
    let request = quorate_mesh::frame::expect(&mut stream, quorate_proto::wire::cap::API).await.unwrap();
    quorate_mesh::frame::write(&mut stream, &Answer::Done, quorate_proto::wire::cap::API).await.unwrap();
    request
}

#[tokio::test]
async fn the_node_of_this_machine_is_asked_through_its_socket_without_a_context() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let endpoint = format!("unix://{}", path.display());
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let client = client(None, &[endpoint], Duration::from_secs(20)).unwrap();
    let (answer, asked) = tokio::join!(client.ask(change()), serve_once(listener));
    assert_eq!((answer, asked), (Ok(Answer::Done), change()));
}

#[tokio::test]
async fn endpoints_that_cannot_be_asked_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let said = async |endpoint: &str| {
        let refused = match client(None, &[endpoint.to_owned()], Duration::from_millis(200)) {
            Ok(client) => client.ask(change()).await.unwrap_err(),
            Err(refusal) => refusal,
        };
        let code = refused.exit_code();
        format!("{refused}\n[exit code {code}]").replace(&directory.path().display().to_string(), "/DIR")
    };
    let nobody = format!("unix://{}/api.sock", directory.path().display());
    insta::assert_snapshot!([said(&nobody).await, said("unix://api.sock").await, said("n1:7443").await].join("\n"));
}
