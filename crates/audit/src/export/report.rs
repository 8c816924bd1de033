//! Evidence for people: a page, and what to do with the directory.

use std::fmt::Write;

use jiff::Timestamp;

use super::Query;
use crate::entry::leaf::Header;

/// Text that stays text in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// How the page begins. It loads nothing and runs nothing.
pub(super) fn head(origin: &str, size: u64, query: &Query) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Entries of {0}</title>\n<style>body{{font:15px/1.5 system-ui;margin:2rem auto;max-width:75rem}}table{{border-collapse:collapse;width:100%}}\
         th,td{{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}}pre{{white-space:pre-wrap;word-break:break-word;margin:0}}</style>\n\
         <h1>{1} entries of {0}</h1>\n<p>Asked for: <code>{2}</code>. Made at {3} by {4} from a log of {size} entries.\n\
         This page proves nothing by itself: <code>README</code> says how to check the entries.</p>\n\
         <table><tr><th>entry<th>logged<th>what<th>task<th>agent<th>actor<th>outcome<th>event</tr>\n",
        escaped(origin),
        query.indexes.len(),
        escaped(&query.query.to_string()),
        query.made_at,
        escaped(&query.made_by),
    )
}

/// One entry on the page.
pub(super) fn row(index: u64, header: &Header<'_>, event: Option<&[u8]>) -> String {
    let logged = Timestamp::from_millisecond(header.logged_time).map_or_else(|_| String::new(), |time| time.to_string());
    let what = header.action.as_deref().or(header.event_type.as_deref()).unwrap_or_else(|| header.kind.as_str());
    let [task, agent, actor, outcome] =
        [&header.task, &header.agent, &header.actor, &header.outcome].map(|text| text.as_deref().unwrap_or_default());
    let mut html = format!("<tr><td>{index}");
    for cell in [&*logged, what, task, agent, actor, outcome] {
        let _ = write!(html, "<td>{}", escaped(cell));
    }
    let event = event.map_or_else(
        || "<em>erased</em>".to_owned(),
        |event| format!("<details><summary>show</summary><pre>{}</pre></details>", escaped(&String::from_utf8_lossy(event))),
    );
    let _ = writeln!(html, "<td>{event}</tr>");
    html
}

/// How the page ends.
pub(super) const FOOT: &str = "</table></html>\n";

pub(super) fn readme(origin: &str, size: u64, count: usize) -> String {
    format!(
        "{count} entries of the audit log {origin}, with proofs.

Check all of it:            fte audit verify DIRECTORY --public-key KEY
Check one entry, in Python: base64 -d its leaf_base64 in entries.ndjson into a file LEAF, then
                            python3 check.py proofs/INDEX.tlog-proof LEAF KEY        (of examples/audit of FTE, with ed25519.py beside it)
Any implementation of C2SP tlog-proof can do the same. Take KEY, the log's public key, from a place you trust and not from here.

Proven: each entry was in this log, at its place and to the byte, when the log had {size} entries and its key (and the witnesses that policy names) signed that.
Not proven: that these are all the entries that the question is about; verify the whole log for that. That what an entry says is true. Whose log it is,
with no other key than the one here. That the log was not written anew since, unless witnesses have signed or you know an earlier checkpoint.
What the log encrypts is encrypted in leaf_base64. That the event beside it is what was encrypted is proven too: `nonce`, in the header of the leaf, is the first 24
bytes, base64url, of HMAC-SHA256 under digest_key over the bytes of event_base64 (examples/audit/sealed.py checks it). Entries whose `alg` is XC20P, of earlier
builds, have no such digest: of them it is the word of the log's service.
That these entries are the answer to the question in the manifest is the word of the log's service, which manifest.note signs, and so is what report.html and ocsf.ndjson
make of them. It names the manifest's SHA-256, and the manifest that of each file.
\"erased\" says that the key to an event was destroyed.
"
    )
}
