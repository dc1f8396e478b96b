//! Certificates and keys in files: named by the configuration, read when it is checked and again on SIGHUP.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::reader::Section;
use super::{FieldError, file};

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads both files anew.
    ///
    /// # Errors
    /// A file is missing, unreadable or not PEM, or the key isn't the certificate's; the field is `certificate` or
    /// `key`.
    pub fn read(&self) -> Result<CertifiedKey, FieldError> {
        let chain = read_certificates("certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read_file("key", &self.key)?).map_err(|error| {
            wrong("key", &self.key, &error, "a PEM private key (PKCS #8, PKCS #1 or SEC 1)")
        })?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            let expected = format!("the private key of the certificate in {}", self.certificate.display());
            wrong("key", &self.key, &error, &expected)
        })
    }

    /// The keys `certificate` and `key` of a section, if the files can be used.
    pub(super) fn read_section(section: &mut Section<'_>) -> Option<Self> {
        let certificate = section.required_path("certificate");
        let key = section.required_path("key");
        let files = Self { certificate: certificate?, key: key? };
        files.read().map_err(|error| section.refuse(error)).ok()?;
        Some(files)
    }
}

/// Reads the certificates of a PEM file, at least one.
///
/// # Errors
/// The file is missing, unreadable or has no certificate; `field` is named.
pub fn read_certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FieldError> {
    let pem = read_file(field, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(wrong(field, path, &"no certificate in it", "PEM certificates"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(field, path, &error, "PEM certificates")),
    }
}

/// Reads a file that `field` names.
pub(super) fn read_file(field: &str, path: &Path) -> Result<Vec<u8>, FieldError> {
    file::read(path).map_err(|error| wrong(field, path, &error, file::EXPECTED))
}

fn wrong(field: &str, path: &Path, why: &dyn std::fmt::Display, expected: &str) -> FieldError {
    FieldError::new(field, format_args!("\"{}\" ({why})", path.display()), expected)
}
