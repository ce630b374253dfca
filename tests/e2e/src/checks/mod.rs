//! What must hold on the cluster, one concern per file. Each part gives the lines of a report; a line that failed says what was seen.

pub mod boards;
pub mod children;
pub mod feeds;
pub mod idle;
pub mod ingress;
pub mod monitoring;
