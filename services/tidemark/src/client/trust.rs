//! Whose certificates are believed.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use rustls::{
    CertificateError, ClientConfig, Error as TlsError, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// What the server is asked for: a WebSocket is opened by HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";

/// The system's roots, read once in the life of the process.
static SYSTEM: LazyLock<Trust> = LazyLock::new(|| Trust::from_roots(system_roots()));

/// Why a file with certificate authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("failed to read the certificates in {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is something else, perhaps a key.
    #[error("{} holds no certificate: it needs a PEM file with -----BEGIN CERTIFICATE-----", .0.display())]
    Empty(PathBuf),
    /// What stands between the lines of PEM is no certificate.
    #[error("{} holds something that is not a certificate: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Whose certificates are believed, in the form that connections need. Clones share everything, sessions to be resumed too, so that
/// a hundred clients in a process cost no more than one.
#[derive(Debug, Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The authorities that this system trusts. A container that has none trusts nobody, which the first connection tells.
    pub fn system() -> Self {
        SYSTEM.clone()
    }

    /// Those, and the authorities in this PEM file.
    ///
    /// # Errors
    /// [`TrustError`], fit to be shown to the user.
    pub fn with_ca(path: &Path) -> Result<Self, TrustError> {
        let text = fs::read(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
        let malformed =
            |reason: &dyn Error| TrustError::Malformed { path: path.to_owned(), reason: reason.to_string() };
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| malformed(&error))?;
        if certificates.is_empty() {
            return Err(TrustError::Empty(path.to_owned()));
        }
        let mut roots = system_roots();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| malformed(&error))?;
        }
        Ok(Self::from_roots(roots))
    }

    /// What `--ca` asks for, if it is there.
    ///
    /// # Errors
    /// As [`Trust::with_ca`].
    pub fn load(ca: Option<&Path>) -> Result<Self, TrustError> {
        ca.map_or_else(|| Ok(Self::system()), Self::with_ca)
    }

    /// What a TLS connection is made with.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    fn from_roots(roots: RootCertStore) -> Self {
        // The build may hold a second provider through another crate, and then none is the default until one is named. If somebody has named
        // one already, that is as good.
        let _ = ring::default_provider().install_default();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Self(Arc::new(config))
    }
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("some of the system's certificates cannot be read: {error}");
    }
    let mut roots = RootCertStore::empty();
    // Some systems keep certificates that are too old to be understood; the others count.
    roots.add_parsable_certificates(found.certs);
    roots
}

/// What is wrong with the other side's certificate, and what helps, if that is what an error is about.
pub(crate) fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    let tls: &TlsError = causes(error).find_map(|cause| cause.downcast_ref())?;
    let TlsError::InvalidCertificate(reason) = tls else { return None };
    Some(match reason {
        CertificateError::UnknownIssuer => {
            "the server's certificate is not trusted (unknown authority): name the authority's file with --ca"
                .to_owned()
        }
        reason => format!("the server's certificate is not valid: {reason}"),
    })
}

/// An error and everything behind it. An `io::Error` hides the one that it was made from: `source` would skip it.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}
