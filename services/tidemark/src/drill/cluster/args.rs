//! What can be asked for on the command line: which cluster, which objects, which faults.

use std::{fmt, str::FromStr};

use clap::ValueEnum;

/// Flags of the drill that concern a cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterArgs {
    /// Do the faults through the Kubernetes API, as the user of the kubeconfig, or in a pod as its service account.
    #[arg(long)]
    pub kube: bool,
    /// The namespace of the target and the database (default: that of the context, or of the pod).
    #[arg(short, long, requires = "kube", value_name = "NAME")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig (default: the current one).
    #[arg(long, requires = "kube", value_name = "NAME")]
    pub context: Option<String>,
    /// The Deployment that the clients are connected to. On one machine its name is that of the service.
    #[arg(long, value_name = "deployment/NAME", default_value = "deployment/dashboard", value_parser = deployment)]
    pub target: Place,
    /// What `ingress-restart` takes a pod from, and `drain` leaves alone; `none` if it is not in this cluster.
    #[arg(long, requires = "kube", value_name = "[NAMESPACE/]KIND/NAME", default_value = "traefik/deployment/traefik")]
    pub ingress: Beside,
    /// What `database-delete` takes a pod from, and `drain` leaves alone; `none` if it is not in this cluster.
    #[arg(long, requires = "kube", value_name = "[NAMESPACE/]KIND/NAME", default_value = "statefulset/postgres")]
    pub database: Beside,
    /// A node that `drain` leaves alone. A drill in a pod names its own here.
    #[arg(long, value_name = "NODE", env = "NODE_NAME")]
    pub spare: Option<String>,
}

/// A fault that is done through the Kubernetes API. Names as on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum ClusterFault {
    /// A pod of the target is deleted, and has its time to end.
    PodDelete,
    /// The same without any time to end.
    ForceDelete,
    /// Every pod of the target is replaced, as by `kubectl rollout restart`.
    Rollout,
    /// Two more replicas of the target, then as many as before.
    Scale,
    /// A worker is emptied that hosts the target, but neither database nor ingress.
    Drain,
    /// A pod of the ingress is deleted.
    IngressRestart,
    /// A pod of the database is deleted.
    DatabaseDelete,
}

impl ClusterFault {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::PodDelete => "pod-delete",
            Self::ForceDelete => "force-delete",
            Self::Rollout => "rollout",
            Self::Scale => "scale",
            Self::Drain => "drain",
            Self::IngressRestart => "ingress-restart",
            Self::DatabaseDelete => "database-delete",
        }
    }
}

impl fmt::Display for ClusterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An object that has pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it is, unless in the namespace of the drill.
    pub namespace: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// What has pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The pods that a Deployment wants.
    Deployment,
    /// The pods that a StatefulSet wants.
    StatefulSet,
    /// One on each node that it chooses.
    DaemonSet,
    /// A pod of this name, which somebody makes again.
    Pod,
}

/// Something that the target needs; it may be out of reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// In this cluster.
    At(Place),
    /// Somewhere else.
    Elsewhere,
}

impl Beside {
    /// Where it is in this cluster.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::At(place) => Some(place),
            Self::Elsewhere => None,
        }
    }
}

impl Kind {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::Pod => "pod",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, kind, name) = match text.split('/').collect::<Vec<_>>()[..] {
            [kind, name] => (None, kind, name),
            [namespace, kind, name] if !namespace.is_empty() => (Some(namespace.to_owned()), kind, name),
            _ => return Err("it is no [NAMESPACE/]KIND/NAME".to_owned()),
        };
        let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Pod];
        let kind = kinds.into_iter().find(|known| known.as_str() == kind);
        let kind = kind.ok_or("the kind is none of deployment, statefulset, daemonset and pod")?;
        if name.is_empty() {
            return Err("it has no name".to_owned());
        }
        Ok(Self { namespace, kind, name: name.to_owned() })
    }
}

impl FromStr for Beside {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self::Elsewhere) } else { text.parse().map(Self::At) }
    }
}

fn deployment(text: &str) -> Result<Place, String> {
    let place: Place = text.parse()?;
    if place.kind == Kind::Deployment { Ok(place) } else { Err("the target is a Deployment".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        cluster: ClusterArgs,
    }

    fn parse(flags: &str) -> Result<ClusterArgs, clap::Error> {
        Cli::try_parse_from(["drill"].into_iter().chain(flags.split_whitespace())).map(|cli| cli.cluster)
    }

    fn place(namespace: Option<&str>, kind: Kind, name: &str) -> Place {
        Place { namespace: namespace.map(str::to_owned), kind, name: name.to_owned() }
    }

    #[test]
    fn a_board_needs_no_flag_but_kube() {
        let args = parse("--kube").unwrap();
        assert_eq!(args.target, place(None, Kind::Deployment, "dashboard"));
        assert_eq!(args.ingress, Beside::At(place(Some("traefik"), Kind::Deployment, "traefik")));
        assert_eq!(args.database, Beside::At(place(None, Kind::StatefulSet, "postgres")));
    }

    #[test]
    fn other_objects_are_named_with_kind_and_namespace() {
        let flags = "--kube -n quay --target deployment/gulls --ingress edge/daemonset/door --database pod/db-1";
        let args = parse(flags).unwrap();
        assert_eq!(args.namespace.as_deref(), Some("quay"));
        assert_eq!(args.target, place(None, Kind::Deployment, "gulls"));
        assert_eq!(args.ingress, Beside::At(place(Some("edge"), Kind::DaemonSet, "door")));
        assert_eq!(args.database, Beside::At(place(None, Kind::Pod, "db-1")));
        let args = parse("--kube --ingress none --database none").unwrap();
        assert_eq!((args.ingress, args.database), (Beside::Elsewhere, Beside::Elsewhere));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let wrong = [
            "--namespace quay",
            "--kube --target statefulset/postgres",
            "--kube --target dashboard",
            "--kube --ingress cronjob/door",
            "--kube --database statefulset/",
            "--kube --database a/b/c/d",
        ];
        for flags in wrong {
            assert!(parse(flags).is_err(), "{flags}");
        }
    }

    #[test]
    fn each_fault_is_found_by_the_name_that_it_shows() {
        let names: Vec<_> = ClusterFault::value_variants().iter().map(ToString::to_string).collect();
        let expected =
            ["pod-delete", "force-delete", "rollout", "scale", "drain", "ingress-restart", "database-delete"];
        assert_eq!(names, expected);
        for fault in ClusterFault::value_variants() {
            assert_eq!(ClusterFault::from_str(fault.name(), false), Ok(*fault));
        }
        assert!(<ClusterFault as ValueEnum>::from_str("POD-DELETE", false).is_err());
    }
}
