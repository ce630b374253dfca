//! What can happen. Numbers name one of those that are there, whatever their number.

use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A commit on the primary.
    Write { feed: u8 },
    /// A commit on a server that may have been failed away from.
    WriteToOld { feed: u8, timeline: u8 },
    /// The standby receives all commits.
    Replicate,
    /// The standby is promoted.
    Promote,
    /// The primary crashes and has lost its last commits.
    LoseCommits { commits: u8 },
    /// A replica reaches the server of some timeline.
    Lead { replica: u8, timeline: u8 },
    /// A replica reaches no database.
    Cut { replica: u8 },
    /// The reader of a replica reads.
    Read { replica: u8 },
    /// The stream processor of a replica hands on what was read last, again perhaps.
    Follow { replica: u8 },
    /// A server is sampled.
    Sample { server: u8 },
    /// A server goes.
    EndServer { server: u8 },
    /// A replica gets the list of servers.
    List { replica: u8 },
    /// A replica asks for a sample.
    Ask { replica: u8, server: u8 },
    /// A replica gets the oldest sample that it asked for.
    Answered { replica: u8 },
    /// A replica ends and another takes its place; so many of the frames under way still arrive.
    Restart { replica: u8, arrives: u8 },
    /// The server's end of a connection has a turn.
    Serve { connection: u8 },
    /// The server's end of a connection sends a sign of life.
    Beat { connection: u8 },
    /// A client is asked to move.
    Move { connection: u8 },
    /// A connection breaks; so many of the frames under way still arrive.
    Lose { connection: u8, arrives: u8 },
    /// The oldest frame under way arrives.
    Deliver { connection: u8 },
    /// Everything arrives that the connections of a client have to say.
    Converse { client: u8 },
    /// Time passes.
    Wait { ms: u16 },
    /// The network of a client came back.
    Nudge { client: u8 },
    /// A page goes away.
    Stop { client: u8 },
    /// A page comes back.
    Start { client: u8 },
}

/// One step of a world whose database keeps what it has committed.
pub fn faithful() -> impl Strategy<Value = Step> {
    let n = any::<u8>();
    prop_oneof![
        95 => any_step(),
        4 => n.prop_map(|connection| Step::Move { connection }),
        1 => n.prop_map(|replica| Step::Cut { replica }),
    ]
}

/// One step of a world whose database may forget within a history. The database can be reached, and nobody is asked to move: who comes with a
/// lost version in the cursor learns of the loss from a reading, but not who learned of that version after the cursor was sent.
pub fn forgetful() -> impl Strategy<Value = Step> {
    prop_oneof![49 => any_step(), 1 => (1..5_u8).prop_map(|commits| Step::LoseCommits { commits })]
}

/// Frequent things are frequent.
fn any_step() -> impl Strategy<Value = Step> {
    let (n, few) = (any::<u8>(), 0..3_u8);
    prop_oneof![
        8 => n.prop_map(|feed| Step::Write { feed }),
        1 => (n, n).prop_map(|(feed, timeline)| Step::WriteToOld { feed, timeline }),
        2 => Just(Step::Replicate),
        2 => Just(Step::Promote),
        2 => (n, n).prop_map(|(replica, timeline)| Step::Lead { replica, timeline }),
        12 => n.prop_map(|replica| Step::Read { replica }),
        12 => n.prop_map(|replica| Step::Follow { replica }),
        4 => n.prop_map(|server| Step::Sample { server }),
        1 => n.prop_map(|server| Step::EndServer { server }),
        2 => n.prop_map(|replica| Step::List { replica }),
        4 => (n, n).prop_map(|(replica, server)| Step::Ask { replica, server }),
        4 => n.prop_map(|replica| Step::Answered { replica }),
        1 => (n, few.clone()).prop_map(|(replica, arrives)| Step::Restart { replica, arrives }),
        20 => n.prop_map(|connection| Step::Serve { connection }),
        1 => n.prop_map(|connection| Step::Beat { connection }),
        2 => (n, few).prop_map(|(connection, arrives)| Step::Lose { connection, arrives }),
        30 => n.prop_map(|connection| Step::Deliver { connection }),
        4 => n.prop_map(|client| Step::Converse { client }),
        3 => prop_oneof![1..200_u16, 200..2_000_u16, 2_000..15_000_u16].prop_map(|ms| Step::Wait { ms }),
        1 => n.prop_map(|client| Step::Nudge { client }),
        1 => n.prop_map(|client| Step::Stop { client }),
        1 => n.prop_map(|client| Step::Start { client }),
    ]
}
