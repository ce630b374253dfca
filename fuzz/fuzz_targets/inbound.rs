//! What a client sends after the handshake, as bytes of RFC 6455 or of anything.
#![no_main]

use std::{cell::RefCell, thread_local};

use bytes::Bytes;
use dashboard::{
    inbound::{self, Ended},
    wire,
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

/// Bytes of the smallest frame of a client: two of a header, four of a mask.
const SMALLEST: usize = 6;
/// Longest reason of a close frame, bytes: 125 less the code.
const REASON: usize = 123;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().build().expect("a runtime"));
}

fuzz_target!(|bytes: &[u8]| {
    let (ended, pongs) = RUNTIME.with_borrow(|runtime| runtime.block_on(read(bytes)));
    // Nobody gets more out of it than was put in.
    let answered: usize = pongs.iter().map(|pong| pong.len() - 2 + SMALLEST).sum();
    assert!(answered <= bytes.len(), "{answered} bytes of pings in {}", bytes.len());
    for pong in &pongs {
        assert_eq!((pong[0], usize::from(pong[1])), (0x8a, pong.len() - 2), "a whole pong, not masked");
        assert!(pong.len() <= 2 + 125);
    }
    if let Ended::Broken(code, reason) = ended {
        assert!(matches!(code, 1002 | 1008), "{code}");
        assert!(reason.len() <= REASON);
        let close = wire::close(code, reason);
        assert_eq!(close[2..4], code.to_be_bytes());
        assert_eq!(&close[4..], reason.as_bytes(), "not shortened");
    }
});

async fn read(bytes: &[u8]) -> (Ended, Vec<Vec<u8>>) {
    let (pongs, mut to_send) = mpsc::channel::<Bytes>(1);
    let sending = async {
        let mut sent = Vec::new();
        while let Some(pong) = to_send.recv().await {
            sent.push(pong.to_vec());
        }
        sent
    };
    tokio::join!(inbound::read(bytes, pongs), sending)
}
