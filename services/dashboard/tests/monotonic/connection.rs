//! One connection: the server's end as `session/mod.rs` drives it, and what is under way to the client.

use std::{cell::Cell, collections::VecDeque, pin::Pin, rc::Rc, sync::Arc};

use dashboard::{
    hub::{Greeting, Hub, Position, Refusal, Snapshot},
    wire,
};
use fastwebsockets::{Role, WebSocketError};
use futures_util::FutureExt;
use protocol::{
    Cursor, Database, Feeds, Frame, Move, Transport,
    client::{Conn, Event},
    close, events,
};
use tokio::sync::oneshot;

use super::replica::{Asks, Replica};

/// The server's end.
enum End {
    /// The handshake is on its way.
    Opening,
    /// The client may know more than the replica; whether that has to stay so.
    Greeting(Pin<Box<dyn Future<Output = Greeting>>>, Rc<Cell<bool>>),
    /// The client has been told up to here, and that of the database.
    Open(Position, Database),
    Over,
}

pub struct Connection {
    pub client: usize,
    pub conn: Conn,
    pub replica: usize,
    /// The client's machine has closed it: what still arrives must change nothing.
    pub closed: bool,
    feeds: Arc<Feeds>,
    transport: Transport,
    /// Where the client stood when it came.
    cursor: Option<Cursor>,
    end: End,
    /// What the client has not got yet, the oldest first.
    under_way: VecDeque<Event>,
}

impl Connection {
    pub fn new(
        (client, conn): (usize, Conn),
        replica: usize,
        feeds: &str,
        transport: Transport,
        since: Option<&str>,
    ) -> Self {
        let cursor = since.and_then(|since| since.parse().ok());
        let feeds = Arc::new(Feeds::parse(feeds).unwrap());
        Self {
            client,
            conn,
            replica,
            closed: false,
            feeds,
            transport,
            cursor,
            end: End::Opening,
            under_way: VecDeque::new(),
        }
    }

    /// Gives the server's end one turn. Whether there was something to do.
    pub fn serve(&mut self, replica: &Replica) -> bool {
        let hub = &replica.hub;
        match &mut self.end {
            End::Over => return false,
            _ if self.closed => self.end = End::Over,
            End::Opening => match hub.admit(&self.feeds) {
                Ok(()) => {
                    let (hub, feeds, cursor) = (Arc::clone(hub), Arc::clone(&self.feeds), self.cursor.clone());
                    let behind = Rc::default();
                    let answer =
                        answer(hub, feeds, cursor, Rc::clone(&replica.asks), Rc::clone(&behind), self.transport);
                    self.end = End::Greeting(Box::pin(answer), behind);
                    self.serve(replica);
                }
                Err(Refusal::NotReady) => self.end(close::TRY_LATER, &close::retry_reason(500)),
                Err(refusal @ Refusal::UnknownFeed(_)) => panic!("{refusal:?}"),
            },
            End::Greeting(answer, behind) => {
                // Before the greeting, as the session does it.
                let database = hub.subscribe().borrow().database;
                let Some(Greeting { hello, first, position }) = answer.now_or_never() else { return false };
                if !behind.get() {
                    self.look_at_greeting(hub, &hello, &first);
                }
                self.end = End::Open(position, database);
                self.send(&hello);
                self.send(&first);
            }
            End::Open(position, told) => {
                let newest = *hub.subscribe().borrow();
                if newest.position != *position {
                    let update = hub.news(&self.feeds, position, self.transport);
                    if let Some(update) = update {
                        *told = newest.database;
                        self.send(&update.frame);
                    }
                } else if newest.database != *told {
                    *told = newest.database;
                    self.beat(replica);
                } else {
                    return false;
                }
            }
        }
        true
    }

    /// A replica that can read the database knows all that the client knows before it says a word, or takes it back.
    fn look_at_greeting(&self, hub: &Hub, hello: &[u8], first: &[u8]) {
        let Some(cursor) = &self.cursor else { return };
        let [hello, first] = [hello, first].map(|bytes| frames(bytes, self.transport).remove(0));
        let Frame::Hello(hello) = hello else { panic!("{hello:?}") };
        assert!(hello.timeline >= cursor.history.timeline, "greeted by the past: {hello:?} after {cursor}");
        let known = hub.greet(&self.feeds, None, false, self.transport).first;
        let Frame::Set(known) = frames(&known, self.transport).remove(0) else { panic!("{hello:?}") };
        let known: Cursor = known.cursor.parse().unwrap();
        let knows = cursor.versions.iter().all(|(feed, version)| known.versions[feed] >= *version);
        let takes_back = matches!(first, Frame::Set(set) if set.reset);
        assert!(known.history != cursor.history || knows || takes_back, "greeted with {known} after {cursor}");
    }

    /// A beat, if the server's end is open and has nothing newer to tell.
    pub fn beat(&mut self, replica: &Replica) {
        if let End::Open(position, _) = &self.end
            && *position == replica.hub.subscribe().borrow().position
        {
            let frame = replica.hub.beat(&self.feeds, self.transport);
            self.send(&frame);
        }
    }

    /// The client is asked to leave.
    pub fn ask_to_move(&mut self) {
        if let End::Open(..) = self.end {
            self.send(&wire::frame(&Frame::Move(Move { grace_ms: 10_000 }), self.transport));
        }
    }

    /// The server's end goes: of what is under way `arrives` frames still get there.
    pub fn lose(&mut self, arrives: usize, code: u16) {
        if !matches!(self.end, End::Over) {
            self.under_way.truncate(arrives);
            self.end(code, "");
        }
    }

    /// The next event for the client.
    pub fn deliver(&mut self) -> Option<Event> {
        self.under_way.pop_front()
    }

    /// Whether something is under way to the client.
    pub fn has_more(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether nothing will ever happen on it.
    pub fn is_over(&self) -> bool {
        matches!(self.end, End::Over) && self.under_way.is_empty()
    }

    fn end(&mut self, code: u16, reason: &str) {
        self.end = End::Over;
        self.under_way.push_back(Event::Closed { conn: self.conn, code, reason: reason.to_owned() });
    }

    fn send(&mut self, bytes: &[u8]) {
        let (conn, frames) = (self.conn, frames(bytes, self.transport));
        self.under_way.extend(frames.into_iter().map(|frame| Event::Frame { conn, frame: Some(frame) }));
    }
}

/// The hub's own answer; its reading comes when the replica reads next.
async fn answer(
    hub: Arc<Hub>,
    feeds: Arc<Feeds>,
    cursor: Option<Cursor>,
    asks: Asks,
    behind: Rc<Cell<bool>>,
    transport: Transport,
) -> Greeting {
    let reread = async {
        let (ask, reading) = oneshot::channel();
        asks.borrow_mut().push(ask);
        let reading = reading.await.ok().flatten();
        // No database, or one that was failed away from.
        let is_past = |cursor: &Cursor, reading: &Snapshot| reading.history.timeline < cursor.history.timeline;
        behind
            .set(reading.as_ref().is_none_or(|reading| cursor.as_ref().is_some_and(|cursor| is_past(cursor, reading))));
        reading
    };
    hub.answer(&feeds, cursor.as_ref(), reread, transport).await
}

/// The bytes of a connection as a client reads them.
pub fn frames(bytes: &[u8], transport: Transport) -> Vec<Frame> {
    match transport {
        Transport::WebSocket => messages(bytes),
        Transport::Sse => {
            let told = events::Decoder::new(1 << 20).push(bytes).expect("events that a client takes");
            told.iter()
                .map(|event| Frame::parse(event.data.as_bytes()).expect("a frame that a client can read"))
                .collect()
        }
    }
}

fn messages(bytes: &[u8]) -> Vec<Frame> {
    let (mut frames, _) = fastwebsockets::after_handshake_split(bytes, tokio::io::sink(), Role::Client);
    let mut no_answer = |_| async { Ok::<_, WebSocketError>(()) };
    let reading = async {
        let mut read = Vec::new();
        while let Ok(frame) = frames.read_frame(&mut no_answer).await {
            read.push(Frame::parse(&frame.payload).expect("a frame that a client can read"));
        }
        read
    };
    reading.now_or_never().expect("bytes that are all there")
}
