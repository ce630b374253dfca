//! The command line.
//!
//! - [`demo`]: the whole system on one machine, from [`postgres`], replicas of the services, and the [`front`] before them
//! - [`postgres`]: a throw-away database, also for tests
//! - [`watch`]: feeds in a terminal, by [`client`]
//! - [`drill`]: what clients notice of a fault, by [`client`], [`save`] and [`list`]
//! - [`feed`]: feeds of the user's own tables
//! - [`drill`]: what faults do to the clients of a live system
//! - [`check`]: whether a saved text reaches a dashboard, by [`client`] and [`save`]
//! - [`guard`], [`process`], [`scratch`], [`say`]: what the others need to start things and to leave nothing behind

pub mod check;
pub mod client;
pub mod demo;
pub mod drill;
pub mod feed;
pub mod front;
pub mod guard;
mod http;
pub mod list;
pub mod postgres;
pub mod process;
pub mod save;
pub mod say;
pub mod scratch;
pub mod watch;
