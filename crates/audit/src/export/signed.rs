//! The signature under a manifest.

use fte_events::hex;
use fte_tlog::{KeyAlgorithm, Policy, SignedNote, SignerKey, VerifierKey};
use sha2::{Digest, Sha256};

use super::{ExportError, FORMAT};

/// Where the note is.
const FILE: &str = "manifest.note";

/// The name that manifests of a log are signed under.
fn name(origin: &str) -> String {
    format!("{origin}/export")
}

fn text(origin: &str, digest: &str) -> String {
    format!("{}\n{FORMAT}\n{digest}\n", name(origin))
}

/// The note over a manifest, and the manifest's digest in hex.
pub(super) fn sign(origin: &str, manifest: &[u8], signer: &SignerKey) -> Result<(String, String), ExportError> {
    let digest = hex(&Sha256::digest(manifest));
    let key = signer.renamed(name(origin), KeyAlgorithm::Ed25519).map_err(|source| ExportError::Name { name: name(origin), source })?;
    let text = text(origin, &digest);
    let note = SignedNote::new(&*text).map_err(|error| ExportError::bad(FILE, error.to_string()))?;
    Ok((note.with(key.sign(&text, 0)).to_string(), digest))
}

/// Whether a key of this log has signed this manifest.
pub(super) fn check(origin: &str, manifest: &[u8], note: &[u8], policy: &Policy) -> Result<(), ExportError> {
    let bad = |what: &str| ExportError::bad(FILE, what);
    let note = SignedNote::parse(note).map_err(|error| bad(&error.to_string()))?;
    let of_log = policy.logs.iter().filter(|log| log.key.name() == origin);
    let keys: Vec<VerifierKey> =
        of_log.filter_map(|log| VerifierKey::new(name(origin), KeyAlgorithm::Ed25519, log.key.public_bytes()).ok()).collect();
    note.verify(&keys).map_err(|error| bad(&error.to_string()))?;
    if note.text() != text(origin, &hex(&Sha256::digest(manifest))) {
        return Err(ExportError::bad("manifest", "it is not the one that was signed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fte_tlog::{Checkpoint, Hash, NoteSignature};

    use super::*;

    const ORIGIN: &str = "log.example/2026";

    fn key() -> SignerKey {
        SignerKey::new("log.example", KeyAlgorithm::Ed25519, &[1; 32]).unwrap()
    }

    fn of_log() -> SignerKey {
        key().renamed(ORIGIN, KeyAlgorithm::Ed25519).unwrap()
    }

    /// The same text and signature, as if another name had signed.
    fn relabelled(note: &str, as_of: &SignerKey) -> String {
        let note = SignedNote::parse(note.as_bytes()).unwrap();
        let signature =
            NoteSignature { name: as_of.name().to_owned(), id: as_of.verifier().id(), signature: note.signatures()[0].signature.clone() };
        SignedNote::new(note.text()).unwrap().with(signature).to_string()
    }

    #[test]
    fn a_manifest_passes_for_no_checkpoint_and_no_checkpoint_for_a_manifest_whoever_is_said_to_have_signed() {
        let policy = Policy::of_logs([of_log().verifier()]);
        let (note, _) = sign(ORIGIN, b"{}", &key()).unwrap();
        check(ORIGIN, b"{}", note.as_bytes(), &policy).unwrap();
        assert!(check(ORIGIN, b"{ }", note.as_bytes(), &policy).is_err());
        assert!(check("log.example/2027", b"{}", note.as_bytes(), &policy).is_err());
        let as_export = of_log().renamed(name(ORIGIN), KeyAlgorithm::Ed25519).unwrap();
        let wide = Policy::of_logs([of_log().verifier(), as_export.verifier(), key().verifier()]);
        for note in [note.clone(), relabelled(&note, &of_log()), relabelled(&note, &key())] {
            assert!(wide.judge(note.as_bytes()).is_err(), "{note}");
            assert!(crate::keys::trust::policy_of(&wide, note.as_bytes()).judge(note.as_bytes()).is_err(), "{note}");
        }
        for origin in [ORIGIN.to_owned(), name(ORIGIN)] {
            let signer = key().renamed(&*origin, KeyAlgorithm::Ed25519).unwrap();
            let text = Checkpoint { origin, size: 1, root: Hash([0; 32]) }.to_string();
            let checkpoint = SignedNote::new(&*text).unwrap().with(signer.sign(&text, 0)).to_string();
            for note in [checkpoint.clone(), relabelled(&checkpoint, &as_export)] {
                assert!(check(ORIGIN, b"{}", note.as_bytes(), &policy).is_err(), "{note}");
            }
        }
    }
}
