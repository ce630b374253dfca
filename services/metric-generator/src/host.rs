//! What this machine uses, as its system tells.

use std::{io, path::Path, sync::mpsc, thread, time::Duration};

use store::Usage;
use sysinfo::{Disk, DiskRefreshKind, Disks, System};
use tokio::sync::oneshot;

use crate::curve::percent;

/// What processors did cannot be told of a shorter time.
pub const SHORTEST: Duration = sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;

/// Why this machine cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its system is not one of those that are known.
    #[error("failed to read what this machine uses")]
    Unknown(#[source] sysinfo::Error),
    /// There can be no more threads.
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
}

/// A thread that measures. Reading the system's files blocks, a disk that does not answer for long: neither must hold up a task, or the end of the process.
#[derive(Debug)]
pub struct Host {
    asks: mpsc::Sender<oneshot::Sender<Usage>>,
}

impl Host {
    /// Starts the thread, which ends when this is dropped.
    ///
    /// # Errors
    /// [`HostError`] says why this machine cannot be measured.
    pub fn start() -> Result<Self, HostError> {
        let (asks, asked) = mpsc::channel::<oneshot::Sender<Usage>>();
        let mut system = System::new().map_err(HostError::Unknown)?;
        system.refresh_cpu_usage();
        let measuring = thread::Builder::new().name("host".to_owned()).spawn(move || {
            let mut probe = Probe { system, disk: disk() };
            for answer in asked {
                // Whoever asked may have been told to stop.
                let _ = answer.send(probe.measure());
            }
        });
        measuring.map_err(HostError::Thread)?;
        Ok(Self { asks })
    }

    /// What is used now; the processors since the last call, or since the start, which must be [`SHORTEST`] ago. None if the thread has ended.
    pub async fn measure(&self) -> Option<Usage> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(answer).ok()?;
        answered.await.ok()
    }
}

struct Probe {
    system: System,
    disk: Option<Disk>,
}

impl Probe {
    fn measure(&mut self) -> Usage {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let disk = self.disk.as_mut().map_or((0, 0), |disk| {
            disk.refresh_specifics(DiskRefreshKind::nothing().with_storage());
            (disk.total_space().saturating_sub(disk.available_space()), disk.total_space())
        });
        Usage {
            cpu: percent(self.system.global_cpu_usage().into()),
            memory: part(self.system.used_memory(), self.system.total_memory()),
            disk: part(disk.0, disk.1),
        }
    }
}

/// The disk that holds `/`, or where that cannot be seen the largest one.
fn disk() -> Option<Disk> {
    let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage()).ok()?;
    Vec::from(disks).into_iter().max_by_key(|disk| (disk.mount_point() == Path::new("/"), disk.total_space()))
}

fn part(used: u64, total: u64) -> f32 {
    percent(used as f64 * 100.0 / total.max(1) as f64)
}
