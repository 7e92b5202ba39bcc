//! TLS to a broker: whom to believe, and who we are.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Files that were given.
pub struct Tls<'a> {
    pub ca: Option<&'a Path>,
    /// Certificate and key.
    pub own: Option<(&'a Path, &'a Path)>,
}

impl Tls<'_> {
    pub fn is_given(&self) -> bool {
        self.ca.is_some() || self.own.is_some()
    }

    pub fn config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        let config = match self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let shown = key.display();
                let key =
                    PrivateKeyDer::from_pem_file(key).with_context(|| format!("{shown}: no private key in PEM"))?;
                builder.with_client_auth_cert(certificates(certificate)?, key)?
            }
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = self.ca {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .with_context(|| format!("{}: not a certificate of an authority", file.display()))?;
            }
            return Ok(roots);
        }
        // Single ones that cannot be read are none the worse.
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        anyhow::ensure!(
            added > 0,
            "this system has no certificates of authorities: name some by --mqtt-ca-file (MQTT_CA_FILE)"
        );
        Ok(roots)
    }
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = file.display();
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.with_context(|| format!("{shown}: cannot be read as certificates in PEM"))?;
    anyhow::ensure!(!certificates.is_empty(), "{shown}: holds no certificate in PEM");
    Ok(certificates)
}
