//! What every verb that asks the cluster works with: a client, a namespace, the time, and where to write.
//!
//! Invariant: a verb reaches the world only through its session, so that tests hand it a recorded one.

use std::{io, sync::Arc};

use quorate_proto::{
    kinds::Kind,
    object::Object,
    refusal::Refusal,
    request::{Answer, ChangeKind, Read, Reference, Request, Selection, Shape, Table},
    txn::Revision,
    world::Clock,
};

use crate::{
    args::Selectors,
    client::{Client, unexpected},
    output::{self, Console},
    watching::{Told, Watching},
};

/// See the module.
pub(crate) struct Session<'a> {
    /// Asks the cluster.
    pub(crate) client: Client,
    /// The namespace that was named on the command line.
    pub(crate) named_namespace: Option<String>,
    /// The namespace that is meant if none is named.
    pub(crate) default_namespace: String,
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Where to write.
    pub(crate) console: Console<'a>,
}

/// Which objects of a kind are meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// In all namespaces.
    pub(crate) all_namespaces: bool,
    /// By label.
    pub(crate) labels: String,
    /// By field.
    pub(crate) fields: String,
    /// Only from what the asked node has.
    pub(crate) stale: bool,
}

/// What became of a change.
#[derive(Debug)]
pub(crate) struct Changed {
    /// What was done.
    pub(crate) change: ChangeKind,
    /// The object as it is now.
    pub(crate) object: Object,
    /// What was accepted and is not honoured.
    pub(crate) warnings: Vec<String>,
}

impl From<Selectors> for Filter {
    fn from(selectors: Selectors) -> Self {
        Self {
            all_namespaces: selectors.all_namespaces,
            labels: selectors.selector,
            fields: selectors.field_selector,
            stale: false,
        }
    }
}

impl Filter {
    /// The objects of one name.
    pub(crate) fn named(&self, name: &str) -> Self {
        let fields = [self.fields.as_str(), &format!("metadata.name={name}")];
        Self {
            fields: fields.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(","),
            ..self.clone()
        }
    }

    pub(crate) const fn read(&self) -> Read {
        if self.stale { Read::Stale } else { Read::Linearizable }
    }
}

impl Session<'_> {
    /// The namespace that is meant.
    pub(crate) fn namespace(&self) -> &str {
        self.named_namespace.as_deref().unwrap_or(&self.default_namespace)
    }

    /// The name of an object, in the namespace that is meant if its kind has one.
    pub(crate) fn reference(&self, kind: &Kind, name: &str) -> Reference {
        Reference {
            kind: kind.qualified(),
            namespace: kind.namespaced.then(|| self.namespace().to_owned()),
            name: name.to_owned(),
        }
    }

    /// The objects of a kind.
    pub(crate) fn selection(&self, kind: &Kind, filter: &Filter, shape: Shape) -> Selection {
        Selection {
            kind: kind.qualified(),
            namespace: (kind.namespaced && !filter.all_namespaces).then(|| self.namespace().to_owned()),
            labels: filter.labels.clone(),
            fields: filter.fields.clone(),
            shape,
            read: filter.read(),
        }
    }

    /// Asks for one object.
    pub(crate) async fn get(&self, kind: &Kind, name: &str, read: Read) -> Result<Object, Refusal> {
        let request = Request::Get { object: self.reference(kind, name), read };
        match self.client.ask(request.clone()).await? {
            Answer::Objects { objects, .. } if !objects.is_empty() => output::read(&objects[0]),
            answer => Err(unexpected(&request, &answer)),
        }
    }

    /// Asks for a change.
    pub(crate) async fn change(&self, request: Request) -> Result<Changed, Refusal> {
        match self.client.ask(request.clone()).await? {
            Answer::Changed { change, object, warnings } => {
                Ok(Changed { change, object: output::read(&object)?, warnings })
            }
            answer => Err(unexpected(&request, &answer)),
        }
    }

    /// Asks for what is to be shown and, at the same time, whether pods are simulated. That is said first: what is shown must not pass
    /// for more than it is.
    pub(crate) async fn show<T>(&mut self, question: impl AsyncFnOnce(&Session<'_>) -> T) -> io::Result<T> {
        let (answer, status) = tokio::join!(question(self), self.client.ask(Request::Status));
        // Whoever cannot answer this, from memory, has not answered the question either.
        if matches!(status, Ok(Answer::Status(status)) if status.simulated) {
            self.note_simulated()?;
        }
        Ok(answer)
    }

    /// Follows the objects of a kind. What the session shows is shown as [`Self::show`] has it.
    pub(crate) async fn watch(
        &mut self,
        selection: Selection,
    ) -> io::Result<(Watching, Result<Option<Told>, Refusal>)> {
        let mut watching = Watching::new(&self.client, selection);
        let first = self.show(async |_| watching.next().await).await?;
        Ok((watching, first))
    }

    /// Says that changes are missing, and what is shown instead.
    pub(crate) fn note_compacted(&mut self) -> io::Result<()> {
        writeln!(self.console.err, "note: what changed meanwhile is compacted; this is what there is now")
    }

    /// Says that pods are simulated.
    pub(crate) fn note_simulated(&mut self) -> io::Result<()> {
        writeln!(self.console.err, "note: pods of this cluster are simulated")
    }

    /// Asks for the objects of a kind.
    pub(crate) async fn list(&self, kind: &Kind, filter: &Filter) -> Result<(Revision, Vec<Object>), Refusal> {
        let request = Request::List(self.selection(kind, filter, Shape::Objects));
        let (mut at, mut all) = (Revision(0), Vec::new());
        for answer in self.client.ask_for_all(request.clone()).await? {
            let Answer::Objects { revision, objects } = answer else {
                return Err(unexpected(&request, &answer));
            };
            at = revision;
            for document in &objects {
                all.push(output::read(document)?);
            }
        }
        Ok((at, all))
    }

    /// Asks for the table of a kind.
    pub(crate) async fn table(&self, kind: &Kind, filter: &Filter) -> Result<Table, Refusal> {
        let request = Request::List(self.selection(kind, filter, Shape::Table));
        let mut whole = Table { columns: Vec::new(), rows: Vec::new() };
        for answer in self.client.ask_for_all(request.clone()).await? {
            let Answer::Table(part) = answer else {
                return Err(unexpected(&request, &answer));
            };
            if whole.columns.is_empty() {
                whole.columns = part.columns;
            }
            whole.rows.extend(part.rows);
        }
        Ok(whole)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use quorate_proto::{
        refusal::{Reason, Refusal},
        request::{Answer, TableColumn, TableRow},
        world::{Instant, Timestamp},
    };
    use serde_json::Value;

    use super::*;
    use crate::{client::tests::Recorded, failure::Failure};

    /// Noon of the first day of 2027, for ever.
    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Instant {
            Instant::default()
        }

        fn wall(&self) -> Timestamp {
            "2027-01-01T12:00:00Z".parse().unwrap()
        }
    }

    /// What a command printed, as a person sees it: answers, then talk, then why it failed and the exit code.
    pub(crate) async fn run(
        recorded: &Arc<Recorded>,
        command: impl AsyncFnOnce(&mut Session<'_>) -> Result<(), Failure>,
    ) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut session = Session {
            client: recorded.client(),
            named_namespace: None,
            default_namespace: "default".to_owned(),
            clock: Arc::new(Noon),
            console: Console { out: &mut out, err: &mut err },
        };
        let result = command(&mut session).await;
        let mut printed = String::from_utf8(out).unwrap();
        for line in String::from_utf8(err).unwrap().lines() {
            printed.push_str(&format!("[stderr] {line}\n"));
        }
        if let Err(failure) = result {
            printed.push_str(&format!("{failure}\n[exit code {}]\n", failure.exit_code()));
        }
        printed
    }

    pub(crate) fn document(value: &Value) -> quorate_proto::txn::Document {
        Object::from_value(value.clone()).unwrap().to_document()
    }

    pub(crate) fn objects(values: &[Value]) -> Answer {
        Answer::Objects { revision: Revision(42), objects: values.iter().map(document).collect() }
    }

    /// A table; columns that begin with `+` are only shown by `-o wide`.
    pub(crate) fn table(columns: &[&str], rows: &[&[&str]]) -> Answer {
        let columns: Vec<_> = columns
            .iter()
            .map(|name| TableColumn { name: name.trim_start_matches('+').to_owned(), wide: name.starts_with('+') })
            .collect();
        let rows = rows.iter().map(|cells| TableRow {
            namespace: "default".to_owned(),
            name: cells[0].to_owned(),
            cells: cells.iter().map(|cell| (*cell).to_owned()).collect(),
        });
        Answer::Table(Table { columns, rows: rows.collect() })
    }

    pub(crate) fn not_found(what: &str) -> Refusal {
        Refusal::new(Reason::NotFound, format!("{what} was not found"), "there is no such object")
    }
}
