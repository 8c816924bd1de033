//! TLS to an instance behind a gateway: the machine's certificate authorities, or those that `SSL_CERT_FILE` or `SSL_CERT_DIR` name.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// What https connections are made with.
///
/// # Errors
/// Nobody is there to vouch for an instance.
pub(super) fn config(url: &str) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for certificate in found.certs {
        // One that cannot be used is no reason not to trust the others.
        drop(roots.add(certificate));
    }
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(Error::usage(
            format!("{url} cannot be trusted: no certificate authorities were found{why}"),
            "install them (`apt install ca-certificates`), or name a file of your own in SSL_CERT_FILE",
        ));
    }
    Ok(trusting(roots))
}

/// What plain connections are made with: nobody is trusted.
pub(super) fn none() -> ClientConfig {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    versions.expect("ring speaks the versions that are the defaults").with_root_certificates(roots).with_no_client_auth()
}
