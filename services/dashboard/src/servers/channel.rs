//! Where all workers post: the only way into the feed, so that a late answer about a server that is gone brings nothing back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use runtime::Condition;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until},
};

use super::{FEED, sample::Sample};
use crate::hub::{Hub, Items};

/// At most so often sessions are woken: a thousand servers at phases of their own would wake every session a thousand times a second, and no two
/// sessions could share a frame.
const GAP: Duration = Duration::from_millis(250);
/// The same before the feed is complete: nobody looks yet, and readiness waits.
const FIRST_GAP: Duration = Duration::from_millis(10);
/// How long readiness waits for the feed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is posted.
#[derive(Debug)]
pub enum Post {
    /// These servers exist.
    Listed {
        /// All of them.
        servers: BTreeSet<String>,
        /// When that was true.
        at: Instant,
    },
    /// The list could not be read.
    NotListed {
        /// Why.
        reason: String,
    },
    /// A worker had its turn: with a new sample, or without one.
    Asked {
        /// Its server.
        server: String,
        /// The sample.
        sample: Option<Sample>,
        /// When it was the latest.
        at: Instant,
    },
}

/// Which servers exist, and which of them have not had their turn.
#[derive(Debug, Default)]
pub struct Servers {
    /// `None` before the first list.
    listed: Option<BTreeSet<String>>,
    /// Of the first list. The feed is complete when there are none left.
    awaited: BTreeSet<String>,
    /// Why the newest list could not be read.
    failure: Option<String>,
}

impl Servers {
    /// Takes what was posted, and brings into the feed what follows from it.
    pub fn take(&mut self, post: Post, items: &mut Items) {
        match post {
            Post::NotListed { reason } => self.failure = Some(reason),
            Post::Listed { servers, at } => {
                let gone: Vec<_> =
                    items.keys(FEED).filter(|server| !servers.contains(*server)).map(str::to_owned).collect();
                for server in gone {
                    items.remove(FEED, &server);
                }
                if servers.is_empty() {
                    items.confirm(FEED, at); // there is no sample that could say how old this is
                }
                self.failure = None;
                match &self.listed {
                    None => self.awaited = servers.clone(),
                    Some(_) => self.awaited.retain(|server| servers.contains(server)),
                }
                self.listed = Some(servers);
            }
            Post::Asked { server, sample, at } => {
                self.awaited.remove(&server);
                let exists = self.listed.as_ref().is_some_and(|listed| listed.contains(&server));
                if let Some(Sample { version, value }) = sample.filter(|_| exists) {
                    items.put(FEED, Some(&server), version, value, at);
                }
            }
        }
        if self.is_complete() {
            items.complete(FEED);
        }
    }

    fn is_complete(&self) -> bool {
        self.listed.is_some() && self.awaited.is_empty()
    }

    fn describe(&self) -> String {
        match (&self.listed, &self.failure) {
            (None, None) => "asking the generator".to_owned(),
            (None, Some(failure)) => format!("the generator gives no list: {failure}"),
            (Some(listed), None) => format!("{} servers", listed.len()),
            (Some(listed), Some(failure)) => format!("{} servers, values are getting old: {failure}", listed.len()),
        }
    }
}

/// Brings posts into the hub until nobody can post any more.
pub(super) async fn run(mut posts: Receiver<Post>, hub: Arc<Hub>, ready: Condition) {
    let mut servers = Servers::default();
    let (mut waited, patience) = (false, Instant::now() + PATIENCE);
    loop {
        let post = tokio::select! {
            post = posts.recv() => post,
            () = sleep_until(patience), if !waited => {
                waited = true;
                ready.set(true, servers.describe());
                continue;
            }
        };
        let Some(first) = post else { return };
        hub.update(|items| {
            servers.take(first, items);
            while let Ok(next) = posts.try_recv() {
                servers.take(next, items);
            }
        });
        ready.set(servers.is_complete() || waited, servers.describe());
        let gap = if servers.is_complete() { GAP } else { FIRST_GAP };
        sleep_until(Instant::now() + gap).await;
    }
}

#[cfg(test)]
mod tests {
    use protocol::Feeds;
    use runtime::Readiness;
    use serde_json::json;
    use tokio::{sync::mpsc, task::JoinHandle};

    use super::*;

    fn listed(servers: &[&str]) -> Post {
        Post::Listed { servers: servers.iter().map(|server| (*server).to_owned()).collect(), at: Instant::now() }
    }

    fn asked(server: &str, version: Option<u64>) -> Post {
        let sample = version.map(|version| Sample { version, value: json!({}) });
        Post::Asked { server: server.to_owned(), sample, at: Instant::now() }
    }

    /// What a new client is told after these posts: the servers, and whether they are all.
    fn told(posts: Vec<Post>) -> (Vec<String>, bool) {
        let (mut items, mut servers) = (Items::default(), Servers::default());
        items.declare(FEED);
        posts.into_iter().for_each(|post| servers.take(post, &mut items));
        let news = items.since(&Feeds::parse(FEED).unwrap(), 0);
        let items = news.items.iter().map(|item| format!("{}@{}", item.key, item.version));
        (items.collect(), !news.complete.is_empty())
    }

    #[test]
    fn the_feed_is_complete_when_every_listed_server_has_had_its_turn() {
        assert_eq!(told(vec![]), (vec![], false));
        assert_eq!(told(vec![listed(&[])]), (vec![], true));
        assert_eq!(told(vec![listed(&["a", "b"]), asked("a", Some(7))]), (vec!["a@7".into()], false));
        let all = vec![listed(&["a", "b"]), asked("a", Some(7)), asked("b", None)];
        assert_eq!(told(all), (vec!["a@7".into()], true), "a failure is a turn too");
        let one_went = vec![listed(&["a", "b"]), asked("a", Some(7)), listed(&["a"])];
        assert_eq!(told(one_went), (vec!["a@7".into()], true), "nobody waits for a server that is gone");
        let one_came = vec![listed(&["a"]), asked("a", Some(7)), listed(&["a", "b"])];
        assert_eq!(told(one_came), (vec!["a@7".into()], true), "complete stays complete");
    }

    #[test]
    fn a_server_that_is_gone_is_removed_and_a_late_answer_does_not_bring_it_back() {
        let here = || vec![listed(&["a", "b"]), asked("a", Some(7)), asked("b", Some(7))];
        let gone = || here().into_iter().chain([listed(&["b"]), asked("a", Some(8))]).collect();
        assert_eq!(told(gone()), (vec!["b@7".into()], true));
        let failed = here().into_iter().chain([Post::NotListed { reason: "down".into() }]).collect();
        assert_eq!(told(failed).0.len(), 2, "a list that cannot be read says nothing of any server");
        let back = gone().into_iter().chain([listed(&["a", "b"]), asked("a", Some(3))]).collect();
        assert_eq!(told(back).0, ["a@3", "b@7"], "also when its clock has been set back meanwhile");
    }

    #[test]
    fn a_list_without_servers_is_as_old_as_the_list() {
        let (mut items, mut servers, feeds) = (Items::default(), Servers::default(), Feeds::parse(FEED).unwrap());
        items.declare(FEED);
        servers.take(listed(&["a"]), &mut items);
        assert!(items.ages(&feeds, Instant::now()).is_empty(), "a list says nothing of values");
        servers.take(listed(&[]), &mut items);
        assert_eq!(items.ages(&feeds, Instant::now()).len(), 1);
    }

    struct Running {
        posts: mpsc::Sender<Post>,
        hub: Arc<Hub>,
        readiness: Readiness,
        _task: JoinHandle<()>,
    }

    fn running() -> Running {
        let (hub, readiness) = (Arc::new(Hub::new("r".into(), Duration::from_secs(5))), Readiness::default());
        hub.update(|items| items.declare(FEED));
        let (posts, posted) = mpsc::channel(super::super::WAITING);
        let task = tokio::spawn(run(posted, Arc::clone(&hub), readiness.condition(FEED)));
        Running { posts, hub, readiness, _task: task }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_waits_for_the_feed_but_not_longer_than_two_seconds() {
        let running = running();
        running.posts.send(Post::NotListed { reason: "failed to reach it".into() }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_990)).await;
        assert!(!running.readiness.report().0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(
            running.readiness.report(),
            (true, "servers: the generator gives no list: failed to reach it\n".to_owned())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_follows_the_last_turn_at_once() {
        let running = running();
        running.posts.send(listed(&["a"])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
        assert!(!running.readiness.report().0);
        running.posts.send(asked("a", Some(1))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
        assert_eq!(running.readiness.report(), (true, "servers: 1 servers\n".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_posts_in_a_second_wake_sessions_four_times() {
        let running = running();
        running.posts.send(listed(&["a"])).await.unwrap();
        running.posts.send(asked("a", Some(1))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (mut pulse, posts, mut woken) = (running.hub.subscribe(), running.posts.clone(), 0);
        pulse.mark_unchanged();
        let posting = tokio::spawn(async move {
            for version in 2..1_002 {
                posts.send(asked("a", Some(version))).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        while tokio::time::timeout(Duration::from_millis(500), pulse.changed()).await.is_ok() {
            woken += 1;
        }
        posting.await.unwrap();
        assert!((4..=5).contains(&woken), "{woken}");
    }
}
