//! TLS for the MCP endpoint, where it is not on loopback: the certificate that
//! was configured, or one that the node makes for itself and whose fingerprint
//! a client is given beforehand.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Accepts TLS on a connection.
pub type Acceptor = tokio_rustls::TlsAcceptor;

/// SHA-256 of a certificate in DER, as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// Takes the colons that other programs put between the bytes, and no
    /// prefix, as well.
    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let wrong = || "must be sha256: and 64 hexadecimal digits, as `taskmesh up` prints it".to_owned();
        let lower = text.trim().to_ascii_lowercase();
        let digits: Vec<u8> = lower.strip_prefix("sha256:").unwrap_or(&lower).bytes().filter(|b| *b != b':').collect();
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
            .collect();
        let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Fingerprint).ok_or_else(wrong)
    }
}

/// Why there is no TLS. Nothing listens; nothing was changed but, at most, the
/// node's own files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there or not PEM of the right kind.
    #[error("{path}: {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not belong together, or are of no known kind.
    #[error("the certificate and its key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    NotMade(#[from] rcgen::Error),
}

/// A certificate and what answers with it.
#[derive(Clone)]
pub struct Identity {
    /// For the listener.
    pub acceptor: Acceptor,
    /// For clients that have no authority to ask.
    pub fingerprint: Fingerprint,
}

impl Identity {
    /// From PEM files: a chain, the server's own first, and its key.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
        let failure = |path: &Path, problem: String| TlsError::File { path: path.to_owned(), problem };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(certificate).and_then(|certificates| certificates.collect());
        let chain = chain.map_err(|e| failure(certificate, e.to_string()))?;
        let Some(own) = chain.first() else { return Err(failure(certificate, "has no certificate".into())) };
        let fingerprint = Fingerprint::of(own);
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| failure(key, e.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Identity { acceptor: Acceptor::from(Arc::new(config)), fingerprint })
    }

    /// The node's own, from `folder`; made there at the first time for `names`
    /// (host names or addresses).
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn own(folder: &Path, names: &[String]) -> Result<Identity, TlsError> {
        let (certificate, key) = (folder.join("tls-cert.pem"), folder.join("tls-key.pem"));
        if !certificate.exists() || !key.exists() {
            let made = rcgen::generate_simple_self_signed(names)?;
            // The key first: a certificate alone is made anew.
            write(folder, &key, &made.key_pair.serialize_pem())?;
            write(folder, &certificate, &made.cert.pem())?;
        }
        Identity::load(&certificate, &key)
    }
}

/// Writes a file all at once, mode 0600.
fn write(folder: &Path, path: &Path, text: &str) -> Result<(), TlsError> {
    let failure = |e: std::io::Error| TlsError::File { path: path.to_owned(), problem: e.to_string() };
    let mut file = tempfile::Builder::new().prefix(".tls-").tempfile_in(folder).map_err(failure)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failure)?;
    file.persist(path).map_err(|e| failure(e.error))?;
    Ok(())
}

/// Of a client that takes one certificate and no other.
#[must_use]
pub fn pinned(fingerprint: Fingerprint) -> ClientConfig {
    let verifier = Pinned { fingerprint, provider: provider() };
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Names, dates and authorities say nothing of a self-made certificate: that it
/// is this very one says all.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(certificate) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Identity::own(folder.path(), &["node.example".into()]).expect("a certificate");
        let again = Identity::own(folder.path(), &["other.example".into()]).expect("a certificate");
        assert_eq!(first.fingerprint, again.fingerprint);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join("tls-key.pem")).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown_and_with_colons() {
        let shown = Fingerprint([0xa5; 32]).to_string();
        assert_eq!(shown.parse(), Ok(Fingerprint([0xa5; 32])));
        let colons = vec!["A5"; 32].join(":");
        assert_eq!(colons.parse(), Ok(Fingerprint([0xa5; 32])));
        for wrong in ["", "sha256:", "sha256:a5", &shown[..70], "zz"] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_that_are_no_certificate_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        std::fs::write(&certificate, "nonsense").expect("written");
        let error = Identity::load(&certificate, &key).err().expect("refused").to_string();
        assert!(error.contains("c.pem"), "{error}");
    }
}
