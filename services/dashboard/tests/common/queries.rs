//! What a service asks the database, counted on the wire: the server's own statistics would count what its vacuum does too.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex},
};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How often each statement was executed since the last reset.
#[derive(Debug, Clone, Default)]
pub struct Queries(Arc<Mutex<BTreeMap<String, usize>>>);

impl Queries {
    /// Stands between a service and the database; the service takes the way that is returned.
    pub fn between(options: &PgConnectOptions) -> (Self, PgConnectOptions) {
        let queries = Self::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (way, database) = (options.clone().port(listener.local_addr().unwrap().port()), options.get_port());
        let counting = queries.clone();
        // A thread of its own: a test that is busy with its clients must not slow down the database.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move { counting.accept(TcpListener::from_std(listener).unwrap(), database).await });
        });
        (queries, way)
    }

    async fn accept(self, listener: TcpListener, database: u16) {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", database)).await.unwrap();
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(self.clone().forward(from_client, to_server));
        }
    }

    /// Forgets what was counted so far.
    pub fn reset(&self) {
        self.0.lock().unwrap().clear();
    }

    /// How often a statement was executed that contains this; of all statements if it is empty.
    pub fn count(&self, part: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(sql, _)| sql.contains(part)).map(|(_, count)| count).sum()
    }

    /// How many statements were executed. BEGIN and COMMIT do not count.
    pub fn count_of_work(&self) -> usize {
        let work = |sql: &str| !sql.starts_with("BEGIN") && sql != "COMMIT";
        self.0.lock().unwrap().iter().filter(|(sql, _)| work(sql)).map(|(_, count)| count).sum()
    }

    /// What was counted so far; it changes no more.
    pub fn snapshot(&self) -> Self {
        Self(Arc::new(Mutex::new(self.all())))
    }

    /// All of them, for a message.
    pub fn all(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().clone()
    }

    /// Passes on what a client says, and looks at its messages: `Query`, or `Parse`, `Bind` and `Execute`.
    async fn forward(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let (mut statements, mut portals) = (HashMap::<String, String>::new(), HashMap::<String, String>::new());
        // The first message has no type before its length.
        let mut typed = false;
        loop {
            let kind = if typed { Some(from.read_u8().await?) } else { None };
            let length = from.read_u32().await?;
            let mut rest = vec![0; length as usize - 4];
            from.read_exact(&mut rest).await?;
            let mut texts = rest.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
            let mut text = || texts.next().unwrap_or_default();
            match kind {
                Some(b'P') => drop(statements.insert(text(), text())),
                Some(b'B') => {
                    let (portal, statement) = (text(), text());
                    portals.insert(portal, statements.get(&statement).cloned().unwrap_or_default());
                }
                Some(b'E') => self.executed(portals.get(&text()).cloned().unwrap_or_default()),
                Some(b'Q') => self.executed(text()),
                _ => {}
            }
            to.write_all(&[kind.as_slice(), &length.to_be_bytes(), &rest].concat()).await?;
            typed = true;
        }
    }

    fn executed(&self, sql: String) {
        *self.0.lock().unwrap().entry(sql).or_default() += 1;
    }
}
