use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_proto::endpoints::Endpoint;

use super::*;

fn endpoint(node: u8, last: u8, ready: bool) -> PodPort {
    let endpoint = Endpoint {
        pod: format!("web-{last}"),
        address: [10, 214, node, last].into(),
        node: format!("n{node}"),
        ready,
        hostname: None,
    };
    PodPort { endpoint, port: 8080 }
}

fn endpoints() -> impl Strategy<Value = Vec<PodPort>> {
    let node_and_ready = prop::collection::vec((1_u8..4, any::<bool>()), 0..12);
    node_and_ready.prop_map(|all| {
        let each = (1_u8..).zip(all);
        each.map(|(last, (node, ready))| endpoint(node, last, ready)).collect()
    })
}

proptest! {
    #[test]
    fn a_pick_is_ready_untried_and_on_this_node_if_one_there_is(
        endpoints in endpoints(), tried in prop::collection::vec(0_usize..12, 0..6), random: u64,
    ) {
        let tried: Vec<_> = tried.into_iter().filter_map(|index| endpoints.get(index)).map(address).collect();
        let usable = |end: &&PodPort| end.endpoint.ready && !tried.contains(&address(end));
        match pick(&endpoints, "n1", &tried, |_| 0, random) {
            None => prop_assert_eq!(endpoints.iter().filter(usable).count(), 0),
            Some(picked) => {
                prop_assert!(usable(&picked));
                let near = endpoints.iter().filter(usable).any(|end| end.endpoint.node == "n1");
                prop_assert_eq!(picked.endpoint.node == "n1", near);
            }
        }
    }

    #[test]
    fn of_two_endpoints_the_less_loaded_is_always_picked(loads: [u8; 2], random: u64) {
        let both = [endpoint(1, 1, true), endpoint(1, 2, true)];
        let load = |at: SocketAddrV4| usize::from(loads[usize::from(at.ip().octets()[3]) - 1]);
        let picked = pick(&both, "n1", &[], load, random).unwrap();
        prop_assert_eq!(load(address(picked)), usize::from(loads[0].min(loads[1])));
    }
}

#[test]
fn connections_that_stay_open_spread_over_all_endpoints() {
    let endpoints: Vec<PodPort> = (1..=10).map(|last| endpoint(2, last, true)).collect();
    let mut open: BTreeMap<SocketAddrV4, usize> = BTreeMap::new();
    let mut random = 1_u64;
    for _ in 0..1000 {
        // Knuth's multiplier: any sequence that does not favour an endpoint will do.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let picked = pick(&endpoints, "n1", &[], |at| open.get(&at).copied().unwrap_or(0), random).unwrap();
        *open.entry(address(picked)).or_default() += 1;
    }
    let counts: Vec<usize> = open.into_values().collect();
    assert!(counts.len() == 10 && counts.iter().all(|count| (95..=105).contains(count)), "{counts:?}");
}
