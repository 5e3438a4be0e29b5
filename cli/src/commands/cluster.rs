//! `quorate cluster recover`: going on alone, when the quorum is lost for good.
//!
//! Invariant: recovering shows everything a person needs to decide, and changes nothing before that person has said yes.

use std::{collections::BTreeSet, io};

use quorate_node::recovery::{self, Position, Survey};
use quorate_proto::ids::NodeId;

use crate::{
    args::{Cut, Recover},
    failure::Failure,
    output::Console,
};

pub(crate) fn recover(arguments: &Recover, console: &mut Console<'_>) -> Result<(), Failure> {
    let Recover { data_dir, cut, yes } = arguments;
    let cut = match cut {
        Cut::Last => recovery::Cut::Last,
        Cut::Applied => recovery::Cut::Applied,
    };
    let survey = recovery::survey(data_dir)?;
    show(&survey, console)?;
    if !yes {
        explain(&survey, cut, console)?;
        return Ok(());
    }
    let after = recovery::recover(data_dir, cut)?;
    done(&after, console)?;
    Ok(())
}

/// What this survivor has.
fn show(survey: &Survey, console: &mut Console<'_>) -> io::Result<()> {
    let Survey { cluster, node, name, epoch, survivor, .. } = survey;
    let out = &mut *console.out;
    let vote = survivor.voted_for.map_or_else(|| "none".to_owned(), |node| format!("for {}", known(survey, node)));
    writeln!(out, "Cluster:      {cluster}")?;
    writeln!(out, "Node:         {name} ({node})")?;
    writeln!(out, "Epoch:        {epoch}")?;
    writeln!(out, "Term:         {}, voted {vote}", survivor.term)?;
    writeln!(out, "Last entry:   {}", place(survivor.last))?;
    writeln!(out, "Committed:    {}, as far as it knows", place(survivor.committed))?;
    writeln!(out, "Applied:      {}", place(survivor.applied))?;
    writeln!(out, "Revision:     {}", survivor.revision)?;
    writeln!(out, "Voters:       {}", names(survey, &survivor.voters))?;
    writeln!(out, "Members:      {}", names(survey, &survivor.members))
}

/// What it would mean to go on with it.
fn explain(survey: &Survey, cut: recovery::Cut, console: &mut Console<'_>) -> io::Result<()> {
    let (survivor, err) = (&survey.survivor, &mut *console.err);
    let tail = entries(survivor.last).saturating_sub(entries(survivor.applied));
    let others = survivor.members.len().saturating_sub(1);
    writeln!(err)?;
    writeln!(
        err,
        "Nothing was changed. This is for a quorum that is lost for good: {} of {} voters must never come back.",
        survivor.voters.len() / 2 + 1,
        survivor.voters.len()
    )?;
    writeln!(
        err,
        "Run the same on every machine that is left, and go on with the one whose last entry is the greatest: term first, then number."
    )?;
    writeln!(err, "What only the others had is lost: anything behind entry {}.", place(survivor.last))?;
    match cut {
        recovery::Cut::Last => writeln!(
            err,
            "All of the log is kept: {tail} entries behind the state would be done, although perhaps nobody was told that they are (--cut applied drops them)."
        )?,
        recovery::Cut::Applied => writeln!(
            err,
            "Only the state is kept: {tail} entries behind it would be dropped, although perhaps somebody was told that they are done (--cut last keeps them)."
        )?,
    }
    writeln!(
        err,
        "With --yes, this node alone is the cluster, in epoch {}. The other {others} are refused from then on;",
        survey.epoch.number + 1
    )?;
    writeln!(err, "each joins again as a new node: `quorate token create` here, `quorate join TOKEN --fresh` there.")
}

fn done(after: &Survey, console: &mut Console<'_>) -> io::Result<()> {
    writeln!(
        console.out,
        "\nnode/{} is the cluster now: epoch {}, revision {}",
        after.name, after.epoch.number, after.survivor.revision
    )?;
    writeln!(
        console.err,
        "Start it with `quorate up`, as before; `quorate token create` then lets the others join as new nodes: `quorate join TOKEN --fresh`"
    )
}

/// `term 3, number 120`.
fn place(position: Option<Position>) -> String {
    position.map_or_else(|| "none".to_owned(), |at| format!("term {}, number {}", at.term, at.index))
}

/// How many entries there are up to a place.
fn entries(position: Option<Position>) -> u64 {
    position.map_or(0, |at| at.index + 1)
}

fn known(survey: &Survey, node: NodeId) -> String {
    survey.names.get(&node).cloned().unwrap_or_else(|| node.to_string())
}

fn names(survey: &Survey, nodes: &BTreeSet<NodeId>) -> String {
    let names: BTreeSet<_> = nodes.iter().map(|node| known(survey, *node)).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_proto::{hello::Epoch, ids::ClusterId, txn::Revision};

    use super::*;

    fn survey() -> Survey {
        let nodes: Vec<_> = (1..=3_u64).map(NodeId::from).collect();
        let at = |index| Some(Position { term: 3, index });
        Survey {
            cluster: ClusterId::from(7),
            node: nodes[1],
            name: "n2".to_owned(),
            epoch: Epoch::default(),
            survivor: recovery::Survivor {
                term: 4,
                voted_for: Some(nodes[0]),
                last: at(120),
                committed: at(118),
                applied: at(117),
                revision: Revision(96),
                hash: 0,
                voters: nodes.iter().copied().collect(),
                members: nodes.iter().copied().collect(),
            },
            names: BTreeMap::from([(nodes[0], "n1".to_owned()), (nodes[1], "n2".to_owned())]),
        }
    }

    #[test]
    fn a_survivor_is_shown_with_what_going_on_alone_means() {
        let said = |write: &dyn Fn(&mut Console<'_>) -> io::Result<()>| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            write(&mut Console { out: &mut out, err: &mut err }).unwrap();
            [out, err].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
        };
        let survey = survey();
        insta::assert_snapshot!(
            [
                said(&|console| show(&survey, console)),
                said(&|console| explain(&survey, recovery::Cut::Last, console)),
                said(&|console| explain(&survey, recovery::Cut::Applied, console)),
                said(&|console| done(&survey, console)),
            ]
            .join("\n---\n")
        );
    }
}
