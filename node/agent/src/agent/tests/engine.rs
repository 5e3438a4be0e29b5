//! An engine that goes away, restarts or hangs: nothing is started twice, and the node says how it is.

use std::collections::BTreeMap;

use super::*;
use crate::runtime::hanging::Hanging;

/// The containers of a runtime that run, by pod.
async fn runs(runtime: &Arc<Simulated>) -> BTreeMap<String, usize> {
    let mut running = BTreeMap::new();
    let listed = runtime.list().await.unwrap();
    for container in listed.iter().filter(|seen| plan::is_running(seen) && seen.role != Role::Holder) {
        *running.entry(container.pod.name.clone()).or_default() += 1;
    }
    running
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_away_is_told_and_restarts_nothing_when_it_is_back() {
    let sim = sim();
    sim.store.pod("web", web());
    sim.store.until_ready("web").await;
    let before = sim.runtime.list().await.unwrap();
    let mut health = sim.running.agent.health();
    for _ in 0..3 {
        sim.runtime.set_absent(true);
        tokio::time::sleep(Duration::from_secs(5)).await;
        sim.runtime.set_absent(false);
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    assert!(!health.has_changed().unwrap(), "it answered late, and that is all");
    sim.runtime.set_absent(true);
    health.wait_for(|health| health.as_deref().is_some_and(|text| text.contains("does not answer"))).await.unwrap();
    sim.runtime.set_absent(false);
    health.wait_for(Option::is_none).await.unwrap();
    assert_eq!(sim.runtime.list().await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_restarted_and_ended_its_containers_has_each_started_once_more() {
    let sim = sim();
    let names = ["a", "b", "c"];
    for name in names {
        sim.store.pod(name, web());
        sim.store.until_ready(name).await;
    }
    sim.runtime.set_absent(true);
    for container in sim.runtime.everything() {
        sim.runtime.crash(&container.id, 137);
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    sim.runtime.set_absent(false);
    let back = tokio::time::Instant::now();
    for name in names {
        sim.store.until("it was started again", |store| restarts(store, name) == 1).await;
        sim.store.until_ready(name).await;
    }
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(runs(&sim.runtime).await, names.map(|name| (name.to_owned(), 1)).into());
    assert!(names.iter().all(|name| restarts(&sim.store, name) == 1));
}

#[tokio::test(start_paused = true)]
async fn after_an_absence_of_any_length_a_crash_is_noticed_when_it_happens() {
    let sim = sim();
    sim.store.pod("web", web());
    sim.store.until_ready("web").await;
    let mut health = sim.running.agent.health();
    sim.runtime.set_absent(true);
    tokio::time::sleep(Duration::from_secs(600)).await;
    sim.runtime.set_absent(false);
    health.wait_for(Option::is_none).await.unwrap();
    // Whoever asks every two seconds may ask two seconds later.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let main = sim.runtime.list().await.unwrap().into_iter().find(|seen| seen.role != Role::Holder).unwrap();
    let crashed = tokio::time::Instant::now();
    sim.runtime.crash(&main.id, 1);
    sim.store.until("it was started again", |store| restarts(store, "web") == 1).await;
    assert!(crashed.elapsed() < Duration::from_secs(2), "{:?}", crashed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_told_in_time_and_what_it_did_meanwhile_is_not_done_twice() {
    let (clock, store) = (Arc::new(TestClock::new()), Store::new());
    let runtime = simulated(&clock);
    let hanging = Arc::new(Hanging::new(Arc::clone(&runtime)));
    let running = Running::start(Arc::<Hanging>::clone(&hanging), &store, Arc::<TestClock>::clone(&clock));
    store.pod("before", web());
    store.until_ready("before").await;
    let before = runtime.list().await.unwrap();

    // What it is asked for it does, and nobody is told.
    hanging.hang(true);
    store.pod("meanwhile", web());
    let asked = tokio::time::Instant::now();
    let mut health = running.agent.health();
    health.wait_for(|health| health.as_deref().is_some_and(|text| text.contains("took longer"))).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}", asked.elapsed());
    tokio::time::sleep(Duration::from_secs(120)).await;

    hanging.hang(false);
    health.wait_for(Option::is_none).await.unwrap();
    store.until_ready("meanwhile").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(runs(&runtime).await, ["before", "meanwhile"].map(|name| (name.to_owned(), 1)).into());
    let after = runtime.list().await.unwrap();
    assert!(before.iter().all(|container| after.contains(container)), "what ran goes on running");
    assert_eq!((restarts(&store, "before"), restarts(&store, "meanwhile")), (0, 0));
    let holders = after.iter().filter(|seen| seen.role == Role::Holder).count();
    assert_eq!(holders, 2);
    running.stop().await;
}
