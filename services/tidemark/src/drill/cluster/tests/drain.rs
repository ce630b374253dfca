use super::{ClusterFault, args, world::World};
use crate::drill::cluster::Error;

#[tokio::test(start_paused = true)]
async fn drain_empties_the_worker_without_database_and_ingress_and_gives_it_back() {
    let world = World::with_board();
    let cluster = world.cluster(&args(""));
    cluster.check(&[ClusterFault::Drain]).await.unwrap();
    cluster.inject(ClusterFault::Drain).await.unwrap();
    assert_eq!(world.writes(), ["cordon worker2", "evict dashboard", "evict app", "uncordon worker2"]);
    let state = world.state();
    assert!(state.pods.iter().all(|pod| pod.node != "worker2"));
    assert_eq!((state.lowest["dashboard"], state.lowest["app"], state.lowest["postgres"]), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn budgets_are_waited_for() {
    let world = World::with_board();
    // Both dashboards on one worker: the second one may go only when the first is ready elsewhere.
    world.state().pods[0].node = "worker2";
    world.cluster(&args("")).inject(ClusterFault::Drain).await.unwrap();
    let writes = world.writes();
    assert_eq!(writes.iter().filter(|write| *write == "evict dashboard").count(), 2, "{writes:?}");
    assert!(writes.contains(&"evict dashboard: not yet".to_owned()), "{writes:?}");
    assert_eq!(writes.last().unwrap(), "uncordon worker2");
    assert_eq!(world.state().lowest["dashboard"], 1);
}

#[tokio::test(start_paused = true)]
async fn pods_of_daemon_sets_and_of_the_node_stay() {
    let world = World::with_board();
    world.state().make("door", "worker2", 0).owner = Some("DaemonSet");
    world.state().make("static", "worker2", 0).mirror = true;
    let done = world.state().make("old", "worker2", 0).uid;
    let done = world.state().pods.iter().position(|pod| pod.uid == done).unwrap();
    world.state().pods[done].phase = "Succeeded";
    world.state().pods[done].owner = None;
    world.cluster(&args("")).inject(ClusterFault::Drain).await.unwrap();
    assert_eq!(world.writes(), ["cordon worker2", "evict dashboard", "evict app", "uncordon worker2"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_fails_gives_the_worker_back() {
    let world = World::with_board();
    world.state().failures.insert("/eviction", (403, 1));
    let error = world.cluster(&args("")).inject(ClusterFault::Drain).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to drain worker2");
    assert_eq!(world.writes().last().unwrap(), "uncordon worker2");
    assert!(!world.state().nodes[2].cordoned);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ready_elsewhere_in_time_is_told_and_the_worker_is_given_back() {
    let world = World::with_board();
    world.state().stuck = true;
    let error = world.cluster(&args("")).inject(ClusterFault::Drain).await.unwrap_err().to_string();
    assert!(error.contains("worker2 is not back after 300 s: 0 pods are still there, 2 controllers"), "{error}");
    assert_eq!(world.writes().last().unwrap(), "uncordon worker2");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_broken_off_is_put_right_by_restore() {
    let world = World::with_board();
    world.state().stuck = true;
    let cluster = world.cluster(&args(""));
    let second = std::time::Duration::from_secs(1);
    tokio::time::timeout(second, cluster.inject(ClusterFault::Drain)).await.unwrap_err();
    assert!(world.state().nodes[2].cordoned);
    world.writes();
    // The API server is away at first: what is owed is tried again.
    world.state().failures.insert("worker2", (503, 3));
    cluster.restore().await.unwrap();
    cluster.restore().await.unwrap();
    assert_eq!(world.writes(), ["uncordon worker2"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_owed_to_a_node_that_is_gone() {
    let world = World::with_board();
    world.state().stuck = true;
    let cluster = world.cluster(&args(""));
    let second = std::time::Duration::from_secs(1);
    tokio::time::timeout(second, cluster.inject(ClusterFault::Drain)).await.unwrap_err();
    world.state().failures.insert("worker2", (404, 1));
    cluster.restore().await.unwrap();
    assert_eq!(world.state().failures["worker2"].1, 0);
}

#[tokio::test(start_paused = true)]
async fn no_worker_is_drained_without_a_reason_against_the_others() {
    let world = World::with_board();
    let refused = async |flags: &str| {
        let error = world.cluster(&args(flags)).check(&[ClusterFault::Drain]).await.unwrap_err();
        assert!(matches!(error, Error::NoWorker(_)), "{error}");
        error.to_string()
    };
    let said = refused("--spare worker2").await;
    for line in
        ["control-plane: it runs the cluster itself", "worker: it hosts the database", "worker2: it is to be spared"]
    {
        assert!(said.contains(line), "{said}");
    }
    world.state().make("alone", "worker2", 0).owner = None;
    assert!(refused("").await.contains("nobody would make its pod quay/alone-"));
    world.state().pods.retain(|pod| pod.set != "alone");
    world.state().nodes[1].cordoned = true;
    assert!(refused("").await.contains("worker2: there is no other worker"));
    world.state().nodes[1].cordoned = false;
    world.state().pods[1].node = "worker";
    assert!(refused("").await.contains("worker2: it hosts no pod of the target"));
    assert_eq!(world.writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn where_the_database_is_elsewhere_no_worker_hosts_it() {
    let world = World::with_board();
    world.cluster(&args("--database none")).inject(ClusterFault::Drain).await.unwrap();
    let writes = world.writes();
    assert_eq!((writes[0].as_str(), writes.last().unwrap().as_str()), ("cordon worker", "uncordon worker"));
}
