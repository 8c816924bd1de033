use std::fs;

use fte_tlog::{Frontier, KeyAlgorithm, SignerKey, push_entry};
use sha2::{Digest, Sha256};

use super::*;
use crate::entry::leaf::{Enc, Kind, encode};
use crate::subjects::{ALG, ALG_WITHOUT_DIGEST, nonce_text, sealed_digest};
use crate::verify::Directory;

fn key() -> SignerKey {
    SignerKey::new("log.example/2026", KeyAlgorithm::Ed25519, &[1; 32]).unwrap()
}

/// The one that is sealed, and what it can be checked by.
const SEALED: u64 = 256;
const DIGEST_KEY: [u8; 32] = [7; 32];

/// A shard of so many events, the last with a large payload; what it says is no concern here.
fn shard(directory: &Path, size: u64) {
    let put = |name: String, bytes: &[u8]| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let (mut frontier, mut bundles) = (Frontier::default(), vec![Vec::new(); usize::try_from(size.div_ceil(256)).unwrap()]);
    for index in 0..size {
        let event = json!({"id": index, "data": {"input_sha256": "<b>"}}).to_string().into_bytes();
        let payload = if index == SEALED { b"nobody can read this".to_vec() } else { event.clone() };
        let mut header = Header {
            id: Some(index.to_string().into()),
            action: Some("tool.called".into()),
            outcome: Some("denied".into()),
            ..Header::new(Kind::Event, 5, &payload)
        };
        if index == SEALED {
            header.enc = Some(Enc { alg: ALG.into(), key: "1".into(), nonce: nonce_text(&sealed_digest(&DIGEST_KEY, &event)).into() });
        }
        if index + 1 == size {
            header.payload_ref = Some(header.payload_sha256);
            let digest = hex(&header.payload_sha256);
            put(format!("blobs/{}/{digest}", &digest[..2]), &payload);
        }
        let leaf = encode(&header, &payload).unwrap();
        push_entry(&mut bundles[usize::try_from(index / 256).unwrap()], &leaf).unwrap();
        frontier.append(leaf_hash(&leaf), |tile| put(tile.path.to_string(), &tile.bytes()));
    }
    for (path, bytes) in frontier.partial_tiles() {
        put(path.to_string(), &bytes);
    }
    for (index, bundle) in (0..).zip(&bundles) {
        put(TilePath::in_tree(TileLevel::Entries, index, size).unwrap().to_string(), bundle);
    }
    let text = Checkpoint { origin: key().name().to_owned(), size, root: frontier.root() }.to_string();
    put("checkpoint".to_owned(), SignedNote::new(&*text).unwrap().with(key().sign(&text, 0)).to_string().as_bytes());
}

/// The installation's key.
fn host() -> SignerKey {
    key().renamed("log.example", KeyAlgorithm::Ed25519).unwrap()
}

fn query(indexes: &[u64]) -> Query {
    Query {
        export_id: "e".to_owned(),
        made_by: "<auditor>".to_owned(),
        query: json!({"task_id": "t"}),
        indexes: indexes.to_vec(),
        shards: vec![2026],
        retired: Vec::new(),
        complete: Some(true),
        made_at: "2026-07-01T00:00:00Z".parse().unwrap(),
    }
}

fn stored(header: &Header<'_>, payload: &[u8]) -> Result<Option<Opened>, ExportError> {
    if header.enc.is_none() {
        return Ok(Some(Opened { event: payload.to_vec(), digest_key: None }));
    }
    let event = json!({"id": SEALED, "data": {"input_sha256": "<b>"}}).to_string().into_bytes();
    Ok(Some(Opened { event, digest_key: Some(DIGEST_KEY) }))
}

/// Writes evidence of a log and unpacks it.
fn write_and_unpack(top: &Path, open: &Open<'_>) -> (PathBuf, Manifest) {
    let source = Directory::new(top.join("log"));
    let from = Origin { source: &source, policy: &Policy::of_logs([key().verifier()]), signer: &host(), open };
    let mut archive = Archive::new(Vec::new(), jiff::Timestamp::UNIX_EPOCH);
    let (manifest, digest) = write(&mut archive, "export-e/2026", top, &from, &query(&[0, 255, 256, 699])).unwrap();
    let (bytes, length) = archive.finish().unwrap();
    assert_eq!(bytes.len() as u64, length);
    unpack(&*bytes, &top.join("unpacked")).unwrap();
    let evidence = top.join("unpacked/export-e/2026");
    assert_eq!(hex(&Sha256::digest(fs::read(evidence.join("manifest")).unwrap())), digest);
    (evidence, manifest)
}

fn exported(top: &Path) -> (PathBuf, Manifest) {
    shard(&top.join("log"), 700);
    write_and_unpack(top, &stored)
}

#[test]
fn evidence_is_checked_with_a_key_from_elsewhere_and_with_its_own() {
    let top = tempfile::tempdir().unwrap();
    let (evidence, manifest) = exported(top.path());
    let checked = check(&evidence, None).unwrap();
    assert_eq!((&checked.manifest, checked.keys_from_evidence), (&manifest, true));
    // The installation's key, under its own name.
    assert!(!check(&evidence, Some(&Policy::of_logs([host().verifier()]))).unwrap().keys_from_evidence);
    let stranger = SignerKey::new("log.example", KeyAlgorithm::Ed25519, &[2; 32]).unwrap();
    assert!(
        matches!(check(&evidence, Some(&Policy::of_logs([stranger.verifier()]))), Err(ExportError::Bad { file, .. }) if file == "checkpoint")
    );
    let page = fs::read_to_string(evidence.join("report.html")).unwrap();
    assert!(
        page.contains("&lt;b&gt;") && page.contains("&lt;auditor&gt;") && !page.contains("<b>") && !page.contains("<auditor>"),
        "what events say cannot be markup"
    );
    let views = fs::read_to_string(evidence.join("ocsf.ndjson")).unwrap();
    let view: Value = serde_json::from_str(views.lines().next().unwrap()).unwrap();
    assert_eq!((&view["class_uid"], &view["type_uid"], &view["status_code"]), (&json!(6003), &json!(600_399), &json!("denied")));
}

#[test]
fn no_file_of_the_evidence_can_change() {
    let top = tempfile::tempdir().unwrap();
    let (evidence, manifest) = exported(top.path());
    let own = ["manifest".to_owned(), "manifest.note".to_owned()];
    for name in manifest.files.keys().chain(&own) {
        let path = evidence.join(name);
        let bytes = fs::read(&path).unwrap();
        for change in [bytes[..bytes.len() - 1].to_vec(), [&bytes[..], b"\n"].concat()] {
            fs::write(&path, change).unwrap();
            assert!(check(&evidence, None).is_err(), "{name}");
        }
        fs::remove_file(&path).unwrap();
        assert!(check(&evidence, None).is_err(), "{name}");
        fs::write(&path, bytes).unwrap();
    }
    fs::write(evidence.join("more"), "more").unwrap();
    assert!(check(&evidence, None).is_err());
    fs::remove_file(evidence.join("more")).unwrap();
    check(&evidence, None).unwrap();
}

/// Who has the log's key and changes an entry and the manifest still has no proof for it.
#[test]
fn an_entry_that_was_changed_with_the_manifest_is_caught() {
    let top = tempfile::tempdir().unwrap();
    let (evidence, mut manifest) = exported(top.path());
    let lines = fs::read_to_string(evidence.join("entries.ndjson")).unwrap();
    let mut entry: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let mut leaf = STANDARD.decode(entry["leaf_base64"].as_str().unwrap()).unwrap();
    let at = leaf.len() - 20;
    leaf[at] ^= 1;
    entry["leaf_base64"] = json!(STANDARD.encode(leaf));
    let forged: Vec<String> = std::iter::once(entry.to_string()).chain(lines.lines().skip(1).map(str::to_owned)).collect();
    let forged = forged.join("\n") + "\n";
    fs::write(evidence.join("entries.ndjson"), &forged).unwrap();
    manifest.files.insert("entries.ndjson".to_owned(), hex(&Sha256::digest(&forged)));
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    fs::write(evidence.join("manifest"), &text).unwrap();
    let unsigned = check(&evidence, None).unwrap_err().to_string();
    assert_eq!(unsigned, "manifest: it is not the one that was signed");
    fs::write(evidence.join("manifest.note"), signed::sign(&manifest.origin, text.as_bytes(), &host()).unwrap().0).unwrap();
    assert!(matches!(check(&evidence, None), Err(ExportError::Bad { file, .. }) if file == "proofs/0.tlog-proof"));
}

#[test]
fn what_was_asked_for_cannot_be_changed_nor_signed_by_another() {
    let top = tempfile::tempdir().unwrap();
    let (evidence, mut manifest) = exported(top.path());
    manifest.query = json!({"task_id": "another"});
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    fs::write(evidence.join("manifest"), &text).unwrap();
    assert!(check(&evidence, None).is_err());
    let stranger = SignerKey::new("log.example", KeyAlgorithm::Ed25519, &[2; 32]).unwrap();
    let note = signed::sign(&manifest.origin, text.as_bytes(), &stranger).unwrap().0;
    fs::write(evidence.join("manifest.note"), note).unwrap();
    assert!(matches!(check(&evidence, None), Err(ExportError::Bad { file, .. }) if file == "manifest.note"));
}

#[test]
fn what_was_erased_is_told_as_erased_and_still_proven() {
    let top = tempfile::tempdir().unwrap();
    shard(&top.path().join("log"), 700);
    let erased = |header: &Header<'_>, payload: &[u8]| match header.id.as_deref() {
        Some("255") => Ok(None),
        _ => stored(header, payload),
    };
    let (evidence, _) = write_and_unpack(top.path(), &erased);
    check(&evidence, None).unwrap();
    let lines: Vec<Value> =
        fs::read_to_string(evidence.join("entries.ndjson")).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[1]["erased"], &lines[1]["event"]), (&json!(true), &Value::Null));
    assert_eq!(lines.iter().filter(|line| line["event"]["id"].is_u64()).count(), 3);
    assert!(fs::read_to_string(evidence.join("report.html")).unwrap().contains("<em>erased</em>"));
}

#[test]
fn an_event_that_its_entry_does_not_hold_is_not_believed_whoever_signs_it() {
    type Lie = fn(&mut Opened);
    let lies: [(&str, Lie, &str); 6] = [
        ("0", |opened| opened.event = b"{\"id\":9}".to_vec(), "in other words"),
        ("0", |opened| opened.event = b"no JSON".to_vec(), "not what the entry holds"),
        ("256", |opened| opened.event = b"{\"id\":9}".to_vec(), "not the one whose digest"),
        ("256", |opened| opened.event = b"no JSON".to_vec(), "not the one whose digest"),
        ("256", |opened| opened.digest_key = Some([8; 32]), "not the one whose digest"),
        ("256", |opened| opened.digest_key = None, "its bytes are not there"),
    ];
    for (id, lie, said) in lies {
        let top = tempfile::tempdir().unwrap();
        shard(&top.path().join("log"), 700);
        let lying = |header: &Header<'_>, payload: &[u8]| {
            let mut opened = stored(header, payload)?.unwrap();
            if header.id.as_deref() == Some(id) {
                lie(&mut opened);
            }
            Ok(Some(opened))
        };
        let (evidence, _) = write_and_unpack(top.path(), &lying);
        let error = check(&evidence, None).unwrap_err();
        assert!(matches!(&error, ExportError::Bad { file, what } if file == "entries.ndjson" && what.contains(said)), "{said}: {error:?}");
    }
}

#[test]
fn an_event_whose_entry_has_no_digest_of_it_is_told_and_counted() {
    let line = |event_base64: Option<&str>, event: Option<Value>| -> check::Line {
        serde_json::from_value(json!({"index": 1, "leaf_base64": "", "event": event, "event_base64": event_base64})).unwrap()
    };
    let enc = |alg: &'static str| Some(Enc { alg: alg.into(), key: "1".into(), nonce: nonce_text(&[0; 24]).into() });
    let header = Header { enc: enc(ALG_WITHOUT_DIGEST), ..Header::new(Kind::Event, 5, b"sealed") };
    assert_eq!(check::check_shown(&line(None, Some(json!({"id": 1}))), &header, b"sealed"), Ok(false));
    assert_eq!(check::check_shown(&line(Some("eyJpZCI6MX0="), Some(json!({"id": 1}))), &header, b"sealed"), Ok(false));
    assert!(check::check_shown(&line(Some("eyJpZCI6MX0="), Some(json!({"id": 2}))), &header, b"sealed").is_err());
    assert_eq!(check::check_shown(&line(None, None), &header, b"sealed"), Ok(true), "it was erased");
    // Another name of an algorithm is not a way out.
    let header = Header { enc: enc("X"), ..header };
    assert!(check::check_shown(&line(None, Some(json!({"id": 1}))), &header, b"sealed").is_err());
}

#[test]
fn what_is_not_in_the_log_is_not_proven() {
    let top = tempfile::tempdir().unwrap();
    shard(top.path(), 300);
    let source = Directory::new(top.path());
    let policy = Policy::of_logs([key().verifier()]);
    let mut prover = Prover::new(&source, &policy).unwrap();
    assert!(matches!(prover.prove(300), Err(ExportError::NotYet { index: 300, size: 300 })));
    let path = top.path().join("tile/entries/000");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(prover.prove(0), Err(ExportError::Bad { .. })));
    assert!(prover.prove(299).is_ok());
}
