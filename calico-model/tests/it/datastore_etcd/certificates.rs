//! An authority, a server's certificate and a client's, made for one test.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use crate::scratch::Scratch;

pub(super) struct Certificates(Scratch);

impl Certificates {
    pub(super) fn make() -> Self {
        let scratch = Scratch::new();
        let mut params = CertificateParams::new([]).expect("no names are sound names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("keys can be made");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority signs itself");
        fs::write(scratch.file("ca.pem"), authority.pem()).expect("the directory is writable");

        for (name, usage) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address is a name");
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().expect("keys can be made");
            let certificate = params.signed_by(&key, &authority).expect("the authority signs");
            fs::write(scratch.file(&format!("{name}.pem")), certificate.pem())
                .expect("the directory is writable");
            fs::write(scratch.file(&format!("{name}-key.pem")), key.serialize_pem())
                .expect("the directory is writable");
        }
        Self(scratch)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.file(name)
    }

    /// Returns what a server has to be told to serve only clients of this authority.
    pub(super) fn server_arguments(&self) -> Vec<String> {
        vec![
            format!("--cert-file={}", self.file("server.pem").display()),
            format!("--key-file={}", self.file("server-key.pem").display()),
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", self.file("ca.pem").display()),
        ]
    }
}
