use tokio::time::Instant;

use super::{ClusterFault, args, world::World};
use crate::drill::cluster::{Cluster, Error};

async fn inject(world: &World, flags: &str, fault: ClusterFault) -> Vec<String> {
    let cluster = world.cluster(&args(flags));
    cluster.check(&[fault]).await.unwrap();
    assert_eq!(world.writes(), Vec::<String>::new(), "a check changes nothing");
    cluster.inject(fault).await.unwrap();
    world.writes()
}

fn on(world: &World, set: &str) -> Vec<usize> {
    world.state().pods.iter().filter(|pod| pod.set == set).map(|pod| pod.uid).collect()
}

#[tokio::test(start_paused = true)]
async fn pod_delete_takes_one_pod_gracefully_and_waits_for_another() {
    let world = World::with_board();
    let before = on(&world, "dashboard");
    assert_eq!(inject(&world, "", ClusterFault::PodDelete).await, ["delete dashboard grace None"]);
    let after = on(&world, "dashboard");
    assert_eq!((after.len(), after.contains(&before[0]), after.contains(&before[1])), (2, false, true));
}

#[tokio::test(start_paused = true)]
async fn force_delete_leaves_no_time() {
    let writes = inject(&World::with_board(), "--target deployment/app", ClusterFault::ForceDelete).await;
    assert_eq!(writes, ["delete app grace Some(0)"]);
}

#[tokio::test(start_paused = true)]
async fn ingress_restart_takes_a_pod_in_the_namespace_of_the_ingress() {
    let world = World::with_board();
    assert_eq!(inject(&world, "", ClusterFault::IngressRestart).await, ["delete traefik grace None"]);
    assert_eq!(world.state().lowest["traefik"], 1);
}

#[tokio::test(start_paused = true)]
async fn database_delete_waits_for_the_new_pod_of_the_same_name() {
    let world = World::with_board();
    for flags in ["", "--database pod/postgres-0"] {
        let before = on(&world, "postgres");
        assert_eq!(inject(&world, flags, ClusterFault::DatabaseDelete).await, ["delete postgres grace None"]);
        let after = on(&world, "postgres");
        assert!(after.len() == 1 && after != before, "{flags}: {before:?}, {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rollout_waits_until_the_old_pods_are_gone() {
    let world = World::with_board();
    let before = on(&world, "dashboard");
    assert_eq!(inject(&world, "", ClusterFault::Rollout).await, ["restart dashboard"]);
    let after = on(&world, "dashboard");
    assert!(after.len() == 2 && before.iter().all(|old| !after.contains(old)), "{before:?}, {after:?}");
}

#[tokio::test(start_paused = true)]
async fn scale_of_a_deployment_that_a_board_owns_is_that_of_the_board() {
    let world = World::with_board();
    assert_eq!(inject(&world, "", ClusterFault::Scale).await, ["scale board 4", "scale board 2"]);
    assert_eq!(on(&world, "dashboard").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn scale_of_a_deployment_that_nobody_owns_is_its_own() {
    let world = World::with_board();
    world.state().set("dashboard").owner = None;
    assert_eq!(inject(&world, "", ClusterFault::Scale).await, ["scale dashboard 4", "scale dashboard 2"]);
}

#[tokio::test(start_paused = true)]
async fn scale_is_refused_where_the_owner_scales_other_pods() {
    let cluster = World::with_board().cluster(&args("--target deployment/app"));
    let error = cluster.check(&[ClusterFault::Scale]).await.unwrap_err();
    assert!(matches!(error, Error::Owned { .. }), "{error}");
    assert!(error.to_string().contains("board/harbor"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_old_number_comes_back_when_the_new_pods_do_not_become_ready() {
    let world = World::with_board();
    let cluster = world.cluster(&args(""));
    world.state().stuck = true;
    let error = cluster.inject(ClusterFault::Scale).await.unwrap_err();
    assert!(error.to_string().contains("4 of 4 pods wanted are there, 2 of them ready"), "{error}");
    assert_eq!(world.writes(), ["scale board 4", "scale board 2"]);
}

#[tokio::test(start_paused = true)]
async fn the_moment_of_return_is_never_late() {
    let world = World::with_board();
    let cluster = world.cluster(&args(""));
    let began = Instant::now();
    let returned = cluster.inject(ClusterFault::DatabaseDelete).await.unwrap();
    // Three looks until it is gone, two until the new one is ready, half a second between them: the last look that missed it was the one before.
    let looks = |n: u32| began + n * std::time::Duration::from_millis(500);
    assert!(returned.at < Instant::now() && returned.at > looks(2), "{:?}", returned.at - began);
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_the_last_pod() {
    let world = World::with_board();
    world.state().board = 1;
    world.state().set("dashboard").replicas = 1;
    world.state().pods.retain(|pod| (pod.set, pod.node) != ("dashboard", "worker"));
    let cluster = world.cluster(&args(""));
    for fault in [ClusterFault::PodDelete, ClusterFault::ForceDelete, ClusterFault::Drain] {
        let error = cluster.check(&[fault]).await.unwrap_err();
        assert!(matches!(error, Error::Few { serving: 1, needed: 2, .. }), "{fault}: {error}");
        cluster.inject(fault).await.unwrap_err();
    }
    assert_eq!(world.writes(), Vec::<String>::new());
    cluster.check(&[ClusterFault::Rollout]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_whole_is_left_alone() {
    let world = World::with_board();
    world.state().stuck = true;
    world.state().pods[0].ready_in = 9;
    let error = world.cluster(&args("")).inject(ClusterFault::PodDelete).await.unwrap_err();
    assert!(matches!(error, Error::Unsteady { .. }), "{error}");
    assert_eq!(world.writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_named() {
    let world = World::with_board();
    let said = async |flags, fault| world.cluster(&args(flags)).check(&[fault]).await.unwrap_err().to_string();
    assert_eq!(said("--target deployment/gulls", ClusterFault::Rollout).await, "failed to look at deployment/gulls");
    assert_eq!(said("--ingress none", ClusterFault::IngressRestart).await, "ingress-restart needs --ingress");
    assert_eq!(said("--database none", ClusterFault::DatabaseDelete).await, "database-delete needs --database");
    world.state().set("dashboard").paused = true;
    assert!(said("", ClusterFault::Rollout).await.contains("kubectl rollout resume deployment/dashboard"));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_moment_is_asked_again() {
    let world = World::with_board();
    world.state().failures.insert("/pods", (503, 4));
    assert_eq!(inject(&world, "", ClusterFault::PodDelete).await, ["delete dashboard grace None"]);
    assert_eq!(world.state().failures["/pods"].1, 0);
}

#[tokio::test(start_paused = true)]
async fn pods_that_ended_long_ago_are_not_waited_for() {
    let world = World::with_board();
    world.state().make("dashboard", "worker", 0).phase = "Failed";
    world.state().pods.last_mut().unwrap().generation = 99;
    assert_eq!(inject(&world, "", ClusterFault::PodDelete).await, ["delete dashboard grace None"]);
}

#[test]
fn an_injection_can_run_in_a_task_of_its_own() {
    fn sent<T: Send>(_: fn(&'static Cluster) -> T) {}
    sent(|cluster| cluster.inject(ClusterFault::Drain));
    sent(|cluster| cluster.check(&[]));
    sent(|cluster| cluster.restore());
}
