//! The certificates of a test cluster: one authority, a server, and clients.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// Signs certificates and writes them into a directory.
pub struct Authority {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("our own directory");
}

fn key() -> KeyPair {
    KeyPair::generate().expect("keys of the usual kind can be made")
}

impl Authority {
    pub fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("our own directory");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "cornjacket-tests");
        let issuer = CertifiedIssuer::self_signed(parameters, key()).expect("plain parameters");
        write(&dir.join("ca.crt"), &issuer.pem());
        let accounts = key();
        write(&dir.join("accounts.key"), &accounts.serialize_pem());
        write(&dir.join("accounts.pub"), &accounts.public_key_pem());
        Self { dir, issuer }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub fn ca(&self) -> String {
        self.issuer.pem()
    }

    /// `server.crt` and `server.key`, for the names under which the server is asked.
    pub fn server(&self, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("names and addresses");
        parameters.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = key();
        let certificate = parameters.signed_by(&key, &self.issuer).expect("plain parameters");
        write(&self.path("server.crt"), &certificate.pem());
        write(&self.path("server.key"), &key.serialize_pem());
    }

    /// Certificate and key of a client, in PEM: who it is, and in which group.
    pub fn client(&self, name: &str, group: Option<&str>) -> (String, String) {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = key();
        let certificate = parameters.signed_by(&key, &self.issuer).expect("plain parameters");
        (certificate.pem(), key.serialize_pem())
    }
}
