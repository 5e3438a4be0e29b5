//! The bytes of each release: what nodes once sent, stored or printed is read for ever, and still written the same way.
//!
//! `tests/golden/<release>/` holds a line per value: its name and its bytes (wire), or its text (tokens, documents). `UPDATE=1` adds
//! lines for values that have none; it never changes one. A line that no longer fits means that a node of that release would not
//! understand this one: add a variant at the end of the enum, or a new version, instead. Only before a release is out may its lines be
//! deleted and made anew.
//!
//! Invariant: every variant of every enum that is sent or stored has a line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use quorate_proto::{
    branch::{Branch, Branched, Comparison, Operation, OperationResult, Operator, Target},
    hello::{Epoch, Hello, Introduction},
    ids::{ClusterId, NodeId, RequestId},
    key::Key,
    lease::{Lease, LeaseId},
    manifest,
    object::Object,
    query::{Page, Query, Row, Select},
    range::KeyRange,
    refusal::{Reason, Refusal},
    request::{
        Answer, ChangeKind, ClusterStatus, EventKind, Fact, Logs, Member, Read, Reference, Request, Selection, Shape,
        Table, TableColumn, TableRow, TokenInfo,
    },
    store::{StoreAnswer, StoreRequest},
    token::{Secret, Token, TokenId, TokenKind},
    txn::{
        Change, Command, CommandOutcome, CommandRefusal, Compare, Document, Outcome, Revision, Txn, Versioned, Write,
    },
    watch::{Delivery, Event, Update, WatchFrom, WatchSpec},
    wire::{self, cap},
};
use serde::{Serialize, de::DeserializeOwned};

const RELEASE: &str = "0.1";

/// A file of golden lines, `name value`, and which of them were compared.
struct Golden {
    path: PathBuf,
    lines: BTreeMap<String, String>,
    compared: BTreeSet<String>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(RELEASE).join(name);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines =
            text.lines().filter_map(|line| line.split_once(' ')).map(|(name, value)| (name.into(), value.into()));
        Self { path, lines: lines.collect(), compared: BTreeSet::new() }
    }

    /// The golden value of a name: the given one if there is none yet and `UPDATE` is set.
    fn line(&mut self, name: &str, now: &str) -> String {
        assert!(self.compared.insert(name.to_owned()), "{name} is compared twice");
        if env::var_os("UPDATE").is_some() {
            self.lines.entry(name.to_owned()).or_insert_with(|| now.to_owned());
        }
        self.lines.get(name).unwrap_or_else(|| panic!("{name} has no golden line: run with UPDATE=1")).clone()
    }

    /// Compares values with their lines, in both directions.
    fn wire<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(
        &mut self,
        type_name: &str,
        values: &[(&str, T)],
    ) {
        for (name, value) in values {
            let name = format!("{type_name}/{name}");
            let now = wire::encode(value, cap::APPEND).unwrap();
            let golden = self.line(&name, &hex(&now));
            assert_eq!(hex(&now), golden, "{name} is no longer written as in {RELEASE}");
            let read: T = wire::decode(&unhex(&golden), cap::APPEND).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(&read, value, "{name} is no longer read as in {RELEASE}");
        }
    }

    /// As [`Golden::wire`], and every variant of the enum must be among the values.
    fn variants<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(
        &mut self,
        type_name: &str,
        values: &[(&str, T)],
    ) {
        self.wire(type_name, values);
        let numbers: BTreeSet<u8> =
            values.iter().map(|(_, value)| wire::encode(value, cap::APPEND).unwrap()[1]).collect();
        let next = u8::try_from(numbers.len()).unwrap();
        assert_eq!(numbers, (0..next).collect(), "{type_name} has a variant without a golden line");
        let error = wire::decode::<T>(&[wire::VERSION, next], cap::APPEND).unwrap_err();
        let unknown = error.to_string().contains("expected variant index");
        assert!(unknown, "{type_name} has a variant {next} without a golden line: {error}");
    }

    /// Writes new lines down if asked to, and makes sure that none was left out.
    fn close(self) {
        let left: Vec<_> = self.lines.keys().filter(|name| !self.compared.contains(*name)).collect();
        assert!(left.is_empty(), "golden lines that are compared with nothing: {left:?}");
        if env::var_os("UPDATE").is_some() {
            let text: String = self.lines.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
            fs::create_dir_all(self.path.parent().unwrap()).unwrap();
            fs::write(&self.path, text).unwrap();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(name: &str) -> Key {
    Key::new("apps", "deployments", Some("shop"), name).unwrap()
}

fn document(text: &'static str) -> Document {
    Document(Bytes::from_static(text.as_bytes()))
}

fn reference() -> Reference {
    Reference { kind: "deploy".into(), namespace: Some("shop".into()), name: "web".into() }
}

fn selection(read: Read, shape: Shape) -> Selection {
    Selection {
        kind: "pods".into(),
        namespace: None,
        labels: "app=web".into(),
        fields: "spec.nodeName=n1".into(),
        shape,
        read,
    }
}

const REQUEST: RequestId = RequestId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

#[test]
fn what_is_stored_in_the_log_is_written_as_ever() {
    let mut golden = Golden::open("log.txt");
    let txn = Txn::new()
        .create(key("new"), document("{\"a\":1}"))
        .update(key("web"), Revision(300), document("{}"))
        .remove(key("old"), Revision(70_000))
        .put(key("any"), document("{}"))
        .delete(key("none"));
    let (lease, revision, granted) = (lease(), Revision(300), Some(70_000));
    golden.variants(
        "command",
        &[
            ("apply", Command::Apply { request: REQUEST, txn }),
            ("branch", Command::Branch { request: REQUEST, branch: branch() }),
            ("compact", Command::Compact { request: REQUEST, revision }),
            ("grant", Command::Grant { request: REQUEST, lease, ttl_seconds: 300 }),
            ("revoke", Command::Revoke { request: REQUEST, lease, granted }),
        ],
    );
    golden.variants("write", &[("put", Write::Put(key("web"), document("{}"))), ("delete", Write::Delete(key("web")))]);
    golden.variants("outcome", &[("applied", Outcome::Applied(Revision(1))), ("stale", Outcome::Stale(key("web")))]);
    golden.wire(
        "compare",
        &[
            ("absent", Compare { key: key("web"), seen: None }),
            ("seen", Compare { key: key("web"), seen: Some(Revision(u64::MAX)) }),
        ],
    );
    let versioned = Versioned { document: document("{}"), created: Revision(2), modified: Revision(300) };
    golden.wire(
        "change",
        &[
            ("written", Change { revision: Revision(300), key: key("web"), now: Some(versioned) }),
            ("deleted", Change { revision: Revision(301), key: key("web"), now: None }),
        ],
    );
    golden.close();
}

fn lease() -> LeaseId {
    LeaseId::new(0x0123_4567_89ab_cdef).unwrap()
}

fn row(document: Option<Document>) -> Row {
    Row { key: key("web"), created: Revision(2), modified: Revision(300), version: 7, lease: Some(lease()), document }
}

/// A transaction with every target, operator and operation.
fn branch() -> Branch {
    let inner =
        Branch::new().when_all(KeyRange::prefix("/apps/").unwrap(), Operator::Greater, Target::Value(document("{}")));
    Branch::new()
        .when(&key("web"), Operator::Equal, Target::Modified(Revision(300)))
        .when(&key("web"), Operator::Less, Target::Lease(None))
        .when(&key("new"), Operator::NotEqual, Target::Version(7))
        .when(&key("old"), Operator::Equal, Target::Created(Revision(2)))
        .then(Operation::Put { key: key("web"), document: document("{}"), lease: Some(lease()), previous: true })
        .then(Operation::Query(Query::new(KeyRange::all()).at(Revision(1)).limit(10).select(Select::Keys)))
        .otherwise(Operation::delete(KeyRange::key(&key("old"))))
        .otherwise(Operation::Branch(inner))
}

#[test]
fn what_a_transaction_that_chooses_is_made_of_is_written_as_ever() {
    let mut golden = Golden::open("branch.txt");
    let document = document("{}");
    golden.variants(
        "operator",
        &[
            ("equal", Operator::Equal),
            ("not-equal", Operator::NotEqual),
            ("less", Operator::Less),
            ("greater", Operator::Greater),
        ],
    );
    golden.variants(
        "target",
        &[
            ("value", Target::Value(document.clone())),
            ("version", Target::Version(7)),
            ("created", Target::Created(Revision(2))),
            ("modified", Target::Modified(Revision(300))),
            ("lease", Target::Lease(Some(lease()))),
        ],
    );
    let range = KeyRange::between("/a", "/b").unwrap();
    golden.wire(
        "comparison",
        &[("version", Comparison { range: range.clone(), operator: Operator::Less, target: Target::Version(7) })],
    );
    golden.variants(
        "operation",
        &[
            ("put", Operation::Put { key: key("web"), document, lease: Some(lease()), previous: true }),
            ("delete", Operation::Delete { range: range.clone(), previous: true }),
            ("query", Operation::Query(Query::new(range))),
            ("branch", Operation::Branch(branch())),
        ],
    );
    golden.variants(
        "operation-result",
        &[
            ("put", OperationResult::Put(Some(row(None)))),
            ("deleted", OperationResult::Deleted { count: 1, previous: vec![row(None)] }),
            ("found", OperationResult::Found(page())),
            ("branch", OperationResult::Branch { succeeded: false, results: vec![OperationResult::Put(None)] }),
        ],
    );
    let branched = |results| Branched { revision: Revision(300), succeeded: true, results };
    golden
        .wire("branched", &[("whole", branched(Some(vec![OperationResult::Put(None)]))), ("not-kept", branched(None))]);
    golden.variants(
        "command-outcome",
        &[
            ("applied", CommandOutcome::Applied(Revision(1))),
            ("stale", CommandOutcome::Stale(key("web"))),
            ("branched", CommandOutcome::Branched(branched(None))),
            ("compacted", CommandOutcome::Compacted(Revision(300))),
            ("granted", CommandOutcome::Granted),
            ("revoked", CommandOutcome::Revoked(Revision(300))),
            ("refused", CommandOutcome::Refused(CommandRefusal::TooManyDeleted)),
        ],
    );
    golden.variants(
        "command-refusal",
        &[
            ("compacted", CommandRefusal::Compacted { oldest: Revision(300) }),
            ("future-revision", CommandRefusal::FutureRevision { asked: Revision(300), at: Revision(7) }),
            ("no-such-lease", CommandRefusal::NoSuchLease(lease())),
            ("lease-exists", CommandRefusal::LeaseExists(lease())),
            ("lease-full", CommandRefusal::LeaseFull(lease())),
            ("too-many-deleted", CommandRefusal::TooManyDeleted),
        ],
    );
    golden.close();
}

fn page() -> Page {
    Page { revision: Revision(300), rows: vec![row(Some(document("{}")))], more: true, count: 1 }
}

#[test]
fn what_is_read_and_watched_is_written_as_ever() {
    let mut golden = Golden::open("query.txt");
    golden.wire(
        "range",
        &[
            ("all", KeyRange::all()),
            ("key", KeyRange::key(&key("web"))),
            ("prefix", KeyRange::prefix("/apps/").unwrap()),
        ],
    );
    golden.variants("select", &[("rows", Select::Rows), ("keys", Select::Keys), ("count", Select::Count)]);
    golden.wire("query", &[("old", Query::new(KeyRange::all()).at(Revision(300)).limit(10).select(Select::Count))]);
    golden.wire("page", &[("more", page())]);
    golden.variants("watch-from", &[("now", WatchFrom::Now), ("after", WatchFrom::After(Revision(300)))]);
    let spec = WatchSpec {
        no_deletes: true,
        previous: true,
        progress_millis: Some(1000),
        ..WatchSpec::new(KeyRange::all(), WatchFrom::Now)
    };
    golden.wire("watch", &[("filtered", spec)]);
    let put = Event { key: key("web"), now: Some(row(Some(document("{}")))), before: None };
    let delete = Event { key: key("web"), now: None, before: Some(row(None)) };
    let update = Update { revision: Revision(300), events: vec![put, delete] };
    golden
        .variants("delivery", &[("update", Delivery::Update(update)), ("progress", Delivery::Progress(Revision(300)))]);
    let shown = Lease { id: lease(), ttl_seconds: 300, remaining_millis: 70_000, keys: vec![key("web")] };
    golden.wire("lease", &[("granted", shown)]);
    golden.close();
}

#[test]
fn what_clients_and_nodes_ask_is_written_as_ever() {
    let mut golden = Golden::open("request.txt");
    golden.variants(
        "read",
        &[("linearizable", Read::Linearizable), ("stale", Read::Stale), ("at-least", Read::AtLeast(Revision(42)))],
    );
    golden.variants("shape", &[("objects", Shape::Objects), ("table", Shape::Table)]);
    golden.variants("fact", &facts());
    golden.variants("store-request", &store_requests());
    golden.variants("request", &requests());
    golden.close();
}

fn facts() -> [(&'static str, Fact); 4] {
    let (namespace, name, uid) = ("shop".to_owned(), "web-1".to_owned(), "u-1".to_owned());
    let status = document("{\"phase\":\"Running\"}");
    [
        (
            "pod",
            Fact::Pod { namespace: namespace.clone(), name: name.clone(), uid: uid.clone(), status: status.clone() },
        ),
        ("gone", Fact::Gone { namespace, name, uid }),
        ("node", Fact::Node { status }),
        ("event", Fact::Event { event: document("{\"reason\":\"Started\"}") }),
    ]
}

fn requests() -> Vec<(&'static str, Request)> {
    let (request, object, dry_run) = (REQUEST, document("{}"), true);
    vec![
        ("get", Request::Get { object: reference(), read: Read::Linearizable }),
        ("list", Request::List(selection(Read::AtLeast(Revision(42)), Shape::Table))),
        ("watch", Request::Watch(selection(Read::Stale, Shape::Objects))),
        ("apply", Request::Apply { request, object: object.clone(), dry_run }),
        ("create", Request::Create { request, object: object.clone(), dry_run }),
        ("replace", Request::Replace { request, object: object.clone(), dry_run }),
        ("patch", Request::Patch { request, object: reference(), patch: object, dry_run }),
        ("delete", Request::Delete { request, object: reference(), grace_seconds: Some(0) }),
        ("scale", Request::Scale { request, object: reference(), replicas: 300 }),
        (
            "logs",
            Request::Logs(Logs {
                namespace: "shop".into(),
                pod: "web-1".into(),
                container: Some("web".into()),
                follow: true,
                previous: false,
                tail: Some(10),
                since_seconds: None,
                timestamps: true,
                forwarded: false,
            }),
        ),
        ("status", Request::Status),
        ("create-token", Request::CreateToken { request, lifetime_seconds: 3600, uses: 1 }),
        ("list-tokens", Request::ListTokens),
        ("revoke-token", Request::RevokeToken { request, id: "aebagbaf".into() }),
        ("heartbeat", Request::Heartbeat { incarnation: 7 }),
        ("report", Request::Report { request, facts: facts().map(|(_, fact)| fact).into() }),
        (
            "watch-from",
            Request::WatchFrom { selection: selection(Read::Linearizable, Shape::Table), after: Some(Revision(42)) },
        ),
        ("endpoints", Request::Endpoints),
        ("overview", Request::Overview { forwarded: true }),
        ("leave", Request::Leave { request, node: "n2".into() }),
        ("backup", Request::Backup { read: Read::Linearizable }),
        ("store", Request::Store(StoreRequest::KeepAlive(lease()))),
    ]
}

fn store_requests() -> [(&'static str, StoreRequest); 5] {
    let range = KeyRange::prefix("/kv/bench/_/").unwrap();
    let grant = Command::Grant { request: REQUEST, lease: lease(), ttl_seconds: 300 };
    [
        ("query", StoreRequest::Query { read: Read::Stale, query: Query::new(range.clone()) }),
        ("execute", StoreRequest::Execute(grant)),
        ("watch", StoreRequest::Watch(WatchSpec::new(range, WatchFrom::After(Revision(42))))),
        ("keep-alive", StoreRequest::KeepAlive(lease())),
        ("time-to-live", StoreRequest::TimeToLive(lease())),
    ]
}

fn store_answers() -> [(&'static str, StoreAnswer); 9] {
    let oldest = Revision(300);
    let shown = Lease { id: lease(), ttl_seconds: 300, remaining_millis: 70_000, keys: vec![key("web")] };
    [
        ("page", StoreAnswer::Page(page())),
        ("outcome", StoreAnswer::Outcome(CommandOutcome::Applied(Revision(42)))),
        ("watching", StoreAnswer::Watching(Revision(42))),
        ("watched", StoreAnswer::Watched { bytes: Bytes::from_static(b"delivery"), more: true }),
        ("compacted", StoreAnswer::Compacted { oldest }),
        ("future-revision", StoreAnswer::FutureRevision { asked: Revision(300), at: Revision(42) }),
        ("cancelled", StoreAnswer::Cancelled { after: Revision(42), because: "the store has stopped".into() }),
        ("kept", StoreAnswer::Kept(Some(300))),
        ("lease", StoreAnswer::Lease { lease: Some(shown), more: true }),
    ]
}

#[test]
fn what_they_are_answered_is_written_as_ever() {
    let mut golden = Golden::open("answer.txt");
    golden.variants(
        "reason",
        &[
            ("bad-request", Reason::BadRequest),
            ("invalid", Reason::Invalid),
            ("not-found", Reason::NotFound),
            ("already-exists", Reason::AlreadyExists),
            ("conflict", Reason::Conflict),
            ("forbidden", Reason::Forbidden),
            ("unauthorized", Reason::Unauthorized),
            ("too-large", Reason::TooLarge),
            ("too-many-requests", Reason::TooManyRequests),
            ("expired", Reason::Expired),
            ("unavailable", Reason::Unavailable),
            ("timeout", Reason::Timeout),
            ("internal", Reason::Internal),
            ("storage-full", Reason::StorageFull),
        ],
    );
    golden.variants(
        "event-kind",
        &[("added", EventKind::Added), ("modified", EventKind::Modified), ("deleted", EventKind::Deleted)],
    );
    golden.variants(
        "change-kind",
        &[
            ("created", ChangeKind::Created),
            ("configured", ChangeKind::Configured),
            ("unchanged", ChangeKind::Unchanged),
            ("deleted", ChangeKind::Deleted),
        ],
    );
    golden.variants("store-answer", &store_answers());
    golden.variants("answer", &answers());
    golden.close();
}

fn answers() -> Vec<(&'static str, Answer)> {
    let refusal =
        Refusal::new(Reason::Invalid, "deployment.apps/web was not applied", "`spec` is missing").hint("add it");
    let table = Table {
        columns: vec![TableColumn { name: "NAME".into(), wide: false }, TableColumn { name: "IP".into(), wide: true }],
        rows: vec![TableRow {
            namespace: "shop".into(),
            name: "web".into(),
            cells: vec!["web".into(), "10.214.3.7".into()],
        }],
    };
    let status = ClusterStatus {
        cluster: ClusterId(1),
        node: NodeId(2),
        node_name: "n1".into(),
        leader: Some(NodeId(3)),
        revision: Revision(42),
        simulated: false,
        members: vec![Member { id: NodeId(2), name: Some("n1".into()), voter: true }],
    };
    let token = TokenInfo { id: "aebagbaf".into(), uses_left: 1, expires: "2027-01-15T08:00:00Z".into() };
    vec![
        ("refused", Answer::Refused(refusal)),
        ("done", Answer::Done),
        ("objects", Answer::Objects { revision: Revision(42), objects: vec![document("{}")] }),
        ("table", Answer::Table(table)),
        ("event", Answer::Event { kind: EventKind::Modified, object: document("{}") }),
        (
            "changed",
            Answer::Changed {
                change: ChangeKind::Created,
                object: document("{}"),
                warnings: vec!["`immutable: true` is stored but not honoured: it can still be changed".into()],
            },
        ),
        ("data", Answer::Data(Bytes::from_static(b"hello\n"))),
        ("end", Answer::End),
        ("status", Answer::Status(status)),
        ("token", Answer::Token("QRT1.n".into())),
        ("tokens", Answer::Tokens(vec![token])),
        ("bookmark", Answer::Bookmark(Revision(42))),
        ("endpoints", Answer::Endpoints(vec!["10.99.0.1:7443".into()])),
        ("overview", Answer::Overview(document("{}"))),
        ("store", Answer::Store(StoreAnswer::Kept(None))),
    ]
}

#[test]
fn how_nodes_greet_each_other_is_written_as_ever() {
    let mut golden = Golden::open("hello.txt");
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let introduction = Introduction {
        cluster: ClusterId(1),
        node: NodeId(u128::MAX),
        incarnation: 7,
        dial: 300,
        build: "0.1.0".into(),
        addresses: vec![address("10.0.0.1:7443"), address("[fd00::1]:7443")],
        seen: address("192.0.2.1:40000"),
        wall: 1_800_000_000,
    };
    let epoch = Epoch::default().after(NodeId(0x0a));
    let later = Hello::V2 { epoch, introduction: introduction.clone() };
    golden.variants("hello", &[("v1", Hello::V1(introduction)), ("v2", later)]);
    golden.close();
}

#[test]
fn a_frame_is_a_length_a_version_and_a_body() {
    let frame = wire::frame(&Request::Status, cap::CONTROL).unwrap();
    assert_eq!(hex(&frame), "00000002010a");
    let length = wire::length([0, 0, 0, 2], cap::CONTROL).unwrap();
    assert_eq!(wire::decode::<Request>(&frame[wire::HEADER..][..length], cap::CONTROL).unwrap(), Request::Status);
}

#[test]
fn a_token_that_was_once_printed_can_still_be_used() {
    let mut golden = Golden::open("token.txt");
    let token = |kind, addresses: &[&str]| Token {
        kind,
        pin: std::array::from_fn(|index| u8::try_from(index).unwrap()),
        id: TokenId([1, 2, 3, 4, 5]),
        secret: Secret(*b"golden, not used"),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
    };
    for (name, token) in [
        ("node", token(TokenKind::Node, &["10.0.0.1:7443", "[fd00::1]:7443", "n1.example.org:7443"])),
        ("user", token(TokenKind::User, &[])),
    ] {
        let text = golden.line(name, &token.reveal());
        assert_eq!(token.reveal(), text, "a {name} token is no longer written as in {RELEASE}");
        assert_eq!(text.parse::<Token>().unwrap(), token, "a {name} token is no longer read as in {RELEASE}");
    }
    golden.close();
}

#[test]
fn a_document_that_was_once_stored_is_read_and_stays_as_it_is() {
    let mut golden = Golden::open("documents.txt");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/objects.yaml")).unwrap();
    for found in manifest::read(&text, "tests/golden/objects.yaml").unwrap() {
        let name = format!("{}/{}", found.object.kind(), found.object.name());
        let now = found.object.to_document();
        let stored = golden.line(&name, std::str::from_utf8(&now.0).unwrap());
        let read = Object::from_document(&Document(stored.clone().into())).unwrap();
        assert_eq!(read, found.object, "{name} is no longer read as in {RELEASE}");
        assert_eq!(read.to_document().0, stored, "{name} is no longer written as in {RELEASE}");
    }
    golden.close();
}
