//! Gives out service addresses and node ports: each is a record in the store, so that none is given out twice.
//!
//! The record `/quorate.dev/addresses/_/<name>` is written in the transaction of its service, guarded by a compare; `<name>` is the
//! address itself, or `nodeport-<port>`. Its `spec.owner` names the service. A record whose owner is gone counts as free: whoever deletes
//! a service without freeing its addresses wastes nothing for good.
//!
//! Invariant: an address of a stored service has a record that names this service, by uid.

use std::{collections::BTreeSet, net::Ipv4Addr};

use quorate_proto::{
    kinds::{ADDRESSES, Kind, SERVICES},
    object::Object,
    refusal::{Reason, Refusal},
    snapshot::{Snapshot, Stored},
    txn::Txn,
    world::{Random, rfc3339},
};
use serde_json::{Value, json};

use crate::{
    message::{Problem, Subject, cut},
    pipeline::Moment,
};

/// Node ports, as in Kubernetes.
pub(crate) const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Offsets into the service range that are not given out: the API's own service and the cluster's name server.
const RESERVED: [u32; 2] = [1, 10];

/// Takes over the addresses of the stored service that the new one leaves open, and drops those its type does not have any more.
pub(crate) fn carry(kind: &Kind, stored: &Object, next: &mut Object) {
    if kind != &SERVICES {
        return;
    }
    let had_address = service_type(stored) != "ExternalName";
    if service_type(next) == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if had_address && next.at(&["spec", field]) == stored.at(&["spec", field]) {
                next.unset(&["spec", field]);
            }
        }
    } else if had_address && next.text(&["spec", "clusterIP"]).unwrap_or_default().is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = stored.at(&["spec", field]) {
                next.set(&["spec", field], value.clone());
            }
        }
    }
    let changed = |field| next.at(&["spec", field]) != stored.at(&["spec", field]);
    if changed("clusterIP") && !changed("clusterIPs") {
        next.unset(&["spec", "clusterIPs"]); // it follows `clusterIP`
    }
    let nodes = service_type(next) == "NodePort";
    if !nodes && next.at(&["spec", "externalTrafficPolicy"]) == stored.at(&["spec", "externalTrafficPolicy"]) {
        next.unset(&["spec", "externalTrafficPolicy"]);
    }
    let before = ports(stored);
    let known = |port: &Value| {
        let same = |other: &&Value| ["port", "protocol"].iter().all(|field| other.get(field) == port.get(field));
        before.iter().find(same).and_then(|other| other.get("nodePort")).cloned()
    };
    change_ports(next, |port| match (known(port), nodes) {
        (Some(number), true) if port.get("nodePort").is_none() => port["nodePort"] = number,
        (Some(number), false) if port.get("nodePort") == Some(&number) => {
            if let Value::Object(port) = port {
                port.remove("nodePort");
            }
        }
        _ => {}
    });
}

/// Gives a service the addresses it lacks, records them, and frees those it has no more.
pub(crate) fn assign(
    subject: &Subject,
    kind: &Kind,
    stored: Option<&Object>,
    next: &mut Object,
    snapshot: &Snapshot,
    moment: &Moment<'_>,
    mut txn: Txn,
) -> Result<Txn, Refusal> {
    if kind != &SERVICES {
        return Ok(txn);
    }
    let desk = Desk { subject, snapshot, moment, uid: next.uid().to_owned() };
    if service_type(next) != "ExternalName" {
        desk.cluster_address(next)?;
        if service_type(next) == "NodePort" {
            desk.node_ports(next)?;
        }
    }
    let (before, after) = (stored.map(held).unwrap_or_default(), held(next));
    for name in after.difference(&before) {
        txn = desk.record(name, next, txn)?;
    }
    Ok(free(before.difference(&after), next.uid(), snapshot, txn))
}

/// Frees all addresses of a service that goes.
pub(crate) fn release(object: &Object, snapshot: &Snapshot, txn: Txn) -> Txn {
    if (object.api_version(), object.kind()) != ("v1", SERVICES.kind) {
        return txn;
    }
    free(held(object).iter(), object.uid(), snapshot, txn)
}

/// What a service needs to be given its addresses.
struct Desk<'a> {
    subject: &'a Subject,
    snapshot: &'a Snapshot,
    moment: &'a Moment<'a>,
    uid: String,
}

impl Desk<'_> {
    fn cluster_address(&self, service: &mut Object) -> Result<(), Refusal> {
        let given = service.text(&["spec", "clusterIP"]).unwrap_or_default().to_owned();
        let address = match given.as_str() {
            "" => self.free_address()?.to_string(),
            "None" => given,
            text => {
                let address = text.parse::<Ipv4Addr>().ok().filter(|address| self.offset(*address).is_some());
                let Some(address) = address else {
                    let (first, prefix) = self.moment.settings.service_range;
                    let sentence = format!(
                        "must be an address of the service range {first}/{prefix} that is not reserved, or `None`, not `{}`",
                        cut(text)
                    );
                    return Err(self.subject.invalid(&[Problem::new("spec.clusterIP", sentence)]));
                };
                address.to_string()
            }
        };
        service.set(&["spec", "clusterIPs"], json!([address]));
        service.set(&["spec", "clusterIP"], address);
        Ok(())
    }

    fn node_ports(&self, service: &mut Object) -> Result<(), Refusal> {
        let mut used: BTreeSet<u64> =
            ports(service).iter().filter_map(|port| port.get("nodePort").and_then(Value::as_u64)).collect();
        let mut failed = false;
        change_ports(service, |port| {
            if port.get("nodePort").and_then(Value::as_u64).is_some_and(|number| number != 0) {
                return;
            }
            match self.free_port(&used) {
                Some(number) => {
                    used.insert(u64::from(number));
                    port["nodePort"] = number.into();
                }
                None => failed = true,
            }
        });
        if failed {
            let because = format!("all node ports from {} to {} are taken", NODE_PORTS.start(), NODE_PORTS.end());
            return Err(self.subject.refuse(Reason::TooManyRequests, because).hint("delete services of type NodePort"));
        }
        Ok(())
    }

    /// The offset of an address that may be given out.
    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        let (first, _) = self.moment.settings.service_range;
        let offset = address.to_bits().checked_sub(first.to_bits())?;
        let usable = offset > 0 && offset + 1 < self.size() && !RESERVED.contains(&offset);
        usable.then_some(offset)
    }

    fn size(&self) -> u32 {
        let (_, prefix) = self.moment.settings.service_range;
        1_u32.checked_shl(32 - u32::from(prefix.clamp(1, 32))).unwrap_or(1)
    }

    /// A free address: the first from a random place on, so that services deleted and made again rarely get the same.
    fn free_address(&self) -> Result<Ipv4Addr, Refusal> {
        let (first, prefix) = self.moment.settings.service_range;
        let start = self.start();
        (0..self.size())
            .map(|step| Ipv4Addr::from_bits(first.to_bits().wrapping_add(start.wrapping_add(step) % self.size())))
            .find(|address| self.offset(*address).is_some() && self.is_free(&address.to_string()))
            .ok_or_else(|| {
                let because = format!("all addresses of the service range {first}/{prefix} are taken");
                self.subject.refuse(Reason::TooManyRequests, because).hint("delete services, or make them headless")
            })
    }

    fn free_port(&self, used: &BTreeSet<u64>) -> Option<u16> {
        let count = u32::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
        let start = self.start();
        (0..count)
            .filter_map(|step| u16::try_from(u32::from(*NODE_PORTS.start()) + start.wrapping_add(step) % count).ok())
            .find(|port| !used.contains(&u64::from(*port)) && self.is_free(&node_port(u64::from(*port))))
    }

    fn start(&self) -> u32 {
        let number = self.moment.chance().number();
        u32::try_from(number >> 32).unwrap_or_default() // 32 bits are left
    }

    fn is_free(&self, name: &str) -> bool {
        self.snapshot.find(&ADDRESSES, None, name).is_none_or(|record| owner(record, self.snapshot).is_none())
    }

    /// Writes down that an address is the service's, unless it is another's.
    fn record(&self, name: &str, service: &Object, txn: Txn) -> Result<Txn, Refusal> {
        let internal = |error: &dyn std::fmt::Display| self.subject.refuse(Reason::Internal, error.to_string());
        let key = ADDRESSES.key(None, name).map_err(|error| internal(&error))?;
        let present = self.snapshot.get(&key);
        if let Some(owner) =
            present.and_then(|record| owner(record, self.snapshot)).filter(|owner| owner.uid() != self.uid)
        {
            let place = format!("{}/{}", owner.namespace().unwrap_or_default(), owner.name());
            let problem = match name.strip_prefix("nodeport-") {
                Some(port) => {
                    Problem::new("spec.ports", format!("asks for node port {port}, which is service {place}'s"))
                }
                None => Problem::new("spec.clusterIP", format!("asks for {name}, which is service {place}'s")),
            };
            return Err(self.subject.invalid(&[problem.hint("leave it out, and a free one is chosen")]));
        }
        let record = Object::from_value(json!({
            "apiVersion": ADDRESSES.api_version(),
            "kind": ADDRESSES.kind,
            "metadata": {"name": name, "creationTimestamp": rfc3339(self.moment.wall)},
            "spec": {"owner": {
                "kind": SERVICES.kind,
                "namespace": service.namespace(),
                "name": service.name(),
                "uid": self.uid,
            }},
        }))
        .map_err(|error| internal(&error))?;
        Ok(txn.expect(key.clone(), present.map(|record| record.modified)).put(key, record.to_document()))
    }
}

/// Deletes the records that are the service's own.
fn free<'a>(names: impl Iterator<Item = &'a String>, uid: &str, snapshot: &Snapshot, mut txn: Txn) -> Txn {
    for name in names {
        if let Some(record) = snapshot.find(&ADDRESSES, None, name)
            && record.object.text(&["spec", "owner", "uid"]) == Some(uid)
        {
            txn = txn.remove(record.key.clone(), record.modified);
        }
    }
    txn
}

/// The object that has an address, if it still exists.
fn owner<'a>(record: &Stored, snapshot: &'a Snapshot) -> Option<&'a Object> {
    let text = |field| record.object.text(&["spec", "owner", field]);
    let owner = snapshot.find(Kind::named(text("kind")?)?, text("namespace"), text("name")?)?;
    (text("uid") == Some(owner.object.uid())).then_some(&owner.object)
}

/// The names of the records a service has.
fn held(service: &Object) -> BTreeSet<String> {
    let address = service.text(&["spec", "clusterIP"]).filter(|text| !matches!(*text, "" | "None"));
    let ports = ports(service).iter().filter_map(|port| port.get("nodePort").and_then(Value::as_u64)).map(node_port);
    address.map(str::to_owned).into_iter().chain(ports).collect()
}

fn node_port(number: u64) -> String {
    format!("nodeport-{number}")
}

fn service_type(service: &Object) -> &str {
    service.text(&["spec", "type"]).unwrap_or("ClusterIP")
}

fn ports(service: &Object) -> &[Value] {
    service.at(&["spec", "ports"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn change_ports(service: &mut Object, change: impl FnMut(&mut Value)) {
    let mut ports = ports(service).to_vec();
    if !ports.is_empty() {
        ports.iter_mut().for_each(change);
        service.set(&["spec", "ports"], ports);
    }
}
