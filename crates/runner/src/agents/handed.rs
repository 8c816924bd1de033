//! Artifacts that others made, as files in a workspace: what was handed over with a task, and what came back with a reply.
//!
//! Each goes to `<directory>/<name>`; of several with one name the last is there. What has a name that is no file's, or is not of our store, is listed
//! without a `path`, by its URI alone.

use std::path::Path;

use fte_artifacts::{Digest, ReadError};
use fte_events::Artifact;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::session::{Conversation, error};
use super::{Shared, inside, wire};
use crate::ports::{Said, Start};

/// What was handed over with a task.
pub(super) fn with(start: &Start) -> &[Artifact] {
    start.handed_off.as_ref().map_or(&[], |parent| &parent.artifacts)
}

/// Lays out what was handed over with the task of a program that is started.
pub(super) async fn over(conversation: &Conversation) -> Result<Vec<Value>, Said> {
    into_workspace(conversation, wire::HANDED, with(&conversation.start)).await
}

/// [`lay_out`] in the workspace of a program that is started.
pub(super) async fn into_workspace(conversation: &Conversation, directory: &str, artifacts: &[Artifact]) -> Result<Vec<Value>, Said> {
    let workspace = conversation.program.workspace().map(|workspace| workspace.path().to_owned());
    let disk_bytes = conversation.agent.agent.sandbox.disk_bytes;
    lay_out(&conversation.shared, workspace.as_deref(), directory, artifacts, disk_bytes).await
}

/// The bytes of one, where it is of our store and still there.
pub(super) async fn bytes(shared: &Shared, artifact: &Artifact) -> Result<Option<Vec<u8>>, Said> {
    let Some(digest) = kept(artifact) else { return Ok(None) };
    let read = async {
        let mut reading = shared.artifacts.kept().read(digest, artifact.size_bytes, 0..artifact.size_bytes).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = reading.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok::<_, ReadError>(bytes)
    };
    match read.await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::Missing { .. }) => Ok(None),
        Err(failed) => Err(unavailable(artifact, &fte_service::chain(&failed))),
    }
}

fn unavailable(artifact: &Artifact, why: &dyn std::fmt::Display) -> Said {
    error("artifact_unavailable", format!("{} could not be handed over: {why}", artifact.name), true)
}

/// Lays them out, and lists them as an agent is told of them. What cannot be had now ends the attempt: another one may have it. What is more than the workspace may
/// hold ends it before anything is written.
pub(super) async fn lay_out(
    shared: &Shared,
    workspace: Option<&Path>,
    directory: &str,
    artifacts: &[Artifact],
    disk_bytes: u64,
) -> Result<Vec<Value>, Said> {
    let chosen = chosen(artifacts);
    if workspace.is_some() {
        room(artifacts, &chosen, disk_bytes)?;
    }
    let mut listed = Vec::with_capacity(artifacts.len());
    for (artifact, digest) in artifacts.iter().zip(chosen) {
        let mut shown = serde_json::to_value(artifact).unwrap_or_default();
        if let (Some(workspace), Some(digest)) = (workspace, digest) {
            let path = format!("{directory}/{}", artifact.name);
            match copy(shared, workspace, &path, digest, artifact.size_bytes).await {
                Ok(()) => drop(shown.as_object_mut().map(|fields| fields.insert("path".to_owned(), path.into()))),
                Err(Copying::Read(ReadError::Missing { .. })) => {}
                Err(failed) => return Err(unavailable(artifact, &failed)),
            }
        }
        listed.push(shown);
    }
    Ok(listed)
}

/// Under which digest each is laid out, where it is: of several with one name the last.
fn chosen(artifacts: &[Artifact]) -> Vec<Option<Digest>> {
    let is_last = |at: usize, name: &str| !artifacts[at + 1..].iter().any(|later| later.name == name && kept(later).is_some());
    artifacts.iter().enumerate().map(|(at, artifact)| kept(artifact).filter(|_| is_last(at, &artifact.name))).collect()
}

/// Whether the workspace may hold them all together.
fn room(artifacts: &[Artifact], chosen: &[Option<Digest>], disk_bytes: u64) -> Result<(), Said> {
    let laid_out = artifacts.iter().zip(chosen).filter(|(_, digest)| digest.is_some());
    let sum = laid_out.fold(0, |sum: u64, (artifact, _)| sum.saturating_add(artifact.size_bytes));
    if sum <= disk_bytes {
        return Ok(());
    }
    let why = format!(
        "what was handed over has {sum} bytes, more than the {disk_bytes} that the agent's workspace may hold (`disk` in agents.toml)"
    );
    Err(error("artifact_unavailable", why, false))
}

#[derive(Debug, thiserror::Error)]
enum Copying {
    #[error("{}", fte_service::chain(.0))]
    Read(#[from] ReadError),
    #[error(transparent)]
    Inside(#[from] inside::Error),
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

/// What our store has it under.
fn kept(artifact: &Artifact) -> Option<Digest> {
    let name = artifact.name.as_str();
    let is_file_name = !name.is_empty() && name != "." && name != ".." && name.len() <= 255 && !name.contains(['/', '\0', '\n']);
    let digest = artifact.sha256.parse().ok()?;
    (is_file_name && artifact.uri.strip_prefix("artifact:sha256/") == Some(&artifact.sha256)).then_some(digest)
}

async fn copy(shared: &Shared, workspace: &Path, path: &str, digest: Digest, size: u64) -> Result<(), Copying> {
    let mut reading = shared.artifacts.kept().read(digest, size, 0..size).await?;
    let (workspace, path) = (workspace.to_owned(), path.to_owned());
    let making = tokio::task::spawn_blocking(move || inside::create(&workspace, Path::new(&path)));
    let file = making.await.map_err(std::io::Error::other)??;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(chunk) = reading.next().await? {
        file.write_all(&chunk).await?;
    }
    Ok(file.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_has_a_files_name_is_laid_out() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let check = |name: &str, uri: &str, expected: bool| {
            let (name, sha256) = (name.to_owned(), digest.to_owned());
            let artifact = Artifact {
                name,
                content_type: "text/plain".into(),
                size_bytes: 3,
                sha256,
                uri: uri.to_owned(),
                extra: fte_events::Extra::default(),
            };
            assert_eq!(kept(&artifact).is_some(), expected, "{artifact:?}");
        };
        let ours = format!("artifact:sha256/{digest}");
        check("notes.md", &ours, true);
        for odd in ["", ".", "..", "../notes.md", "a/b", "a\0b"] {
            check(odd, &ours, false);
        }
        check("notes.md", "https://elsewhere/notes.md", false);
    }

    fn made(name: &str, first: char, size_bytes: u64) -> Artifact {
        let sha256 = format!("{first}{}", "0".repeat(63));
        let uri = format!("artifact:sha256/{sha256}");
        Artifact { name: name.to_owned(), content_type: "text/plain".into(), size_bytes, sha256, uri, extra: fte_events::Extra::default() }
    }

    #[test]
    fn of_several_with_one_name_the_last_is_laid_out() {
        let artifacts = [made("a", '1', 1), made("b", '2', 1), made("a", '3', 1)];
        let chosen: Vec<bool> = chosen(&artifacts).iter().map(Option::is_some).collect();
        assert_eq!(chosen, [false, true, true]);
    }

    #[test]
    fn all_together_are_no_more_than_the_workspace_may_hold() {
        let room = |artifacts: &[Artifact]| room(artifacts, &chosen(artifacts), 10);
        assert_eq!(room(&[made("a", '1', 6), made("b", '2', 4)]), Ok(()));
        // What is not laid out takes no room.
        assert_eq!(room(&[made("a", '1', 6), made("a", '2', 6), made("b", '3', 4)]), Ok(()));
        for too_much in [[made("a", '1', 6), made("b", '2', 5)], [made("a", '1', u64::MAX), made("b", '2', u64::MAX)]] {
            let refused = room(&too_much);
            assert!(matches!(&refused, Err(Said::Error { code, retryable: false, .. }) if code == "artifact_unavailable"), "{refused:?}");
        }
    }
}
