//! Who does the faults: a demo on this machine, a cluster, or a command. Everything that can be checked is checked before the first one.

use std::{env, path::Path};

use super::{
    Error,
    args::{Args, Plan},
    cluster::Cluster,
    fault::{Fault, Returned},
    local::Demo,
};

/// All that the faults of a plan need.
pub(super) struct Faults {
    /// Where the clients connect.
    pub url: String,
    demo: Option<Demo>,
    cluster: Option<Cluster>,
}

impl Faults {
    /// Sees that all faults of the plan can be done. `own` is the directory of the drill's own demo.
    pub async fn prepare(args: &Args, plan: &Plan, own: Option<&Path>) -> Result<Self, Error> {
        let local: Vec<_> = plan.faults.iter().filter_map(Fault::local).collect();
        let here = || env::current_dir().map_err(Error::Prepare);
        let target = &args.cluster.target.name;
        let demo = match own {
            Some(directory) => Some(Demo::of(directory, target)?),
            None if local.is_empty() => None,
            None => Some(Demo::of(&here()?, target)?),
        };
        let url = match (&args.url, &demo) {
            (Some(url), _) => url.clone(),
            (None, Some(demo)) => demo.url()?,
            (None, None) => unreachable!("without an address there is a demo of the drill's own"),
        };
        if let Some(demo) = &demo {
            demo.check(&url, &local)?;
        }
        let on_cluster: Vec<_> = plan.faults.iter().filter_map(Fault::on_cluster).collect();
        let cluster = if on_cluster.is_empty() { None } else { Some(Cluster::connect(&args.cluster).await?) };
        if let Some(cluster) = &cluster {
            cluster.check(&on_cluster).await?;
        }
        Ok(Self { url, demo, cluster })
    }

    /// Does one of them.
    pub async fn inject(&self, fault: &Fault) -> Result<Returned, Error> {
        match (fault, &self.demo, &self.cluster) {
            (Fault::Local(fault), Some(demo), _) => Ok(demo.inject(*fault).await?),
            (Fault::Cluster(fault), _, Some(cluster)) => Ok(cluster.inject(*fault).await?),
            (Fault::Command(script), ..) => Ok(script.run().await?),
            (Fault::Local(_) | Fault::Cluster(_), ..) => unreachable!("prepared for every fault of the plan"),
        }
    }

    /// Puts back what a fault that was interrupted would have put back.
    pub async fn restore(&self) -> Result<(), Error> {
        match &self.cluster {
            Some(cluster) => Ok(cluster.restore().await?),
            None => Ok(()),
        }
    }
}
