//! `fs/read_text_file` and `fs/write_text_file`: text files of the workspace.
//!
//! Always true: no path leads out of the workspace (see [`inside`]); what is read or written at a time is bounded, and a large file is read by `line` and
//! `limit`. Blocking: for a thread that may wait for a disk.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::Path;

use agent_client_protocol_schema::v1::{
    Error, ErrorCode, ReadTextFileRequest, ReadTextFileResponse, WriteTextFileRequest, WriteTextFileResponse,
};

use super::super::inside;

/// Reads a file, or `limit` lines of it from `line` (1 is the first) on. At most `bytes_max` are answered, and `skipped_max` gone through on the way there.
pub(super) fn read(
    workspace: &Path,
    request: &ReadTextFileRequest,
    bytes_max: usize,
    skipped_max: u64,
) -> Result<ReadTextFileResponse, Error> {
    let file = inside::open(workspace, &request.path).map_err(|error| refused(&request.path, &error))?;
    let mut file = BufReader::new(file.take(skipped_max));
    let failed = |error: &io::Error| Error::internal_error().data(error.to_string());
    for _ in 1..request.line.unwrap_or(1).max(1) {
        if file.skip_until(b'\n').map_err(|error| failed(&error))? == 0 {
            break;
        }
    }
    let mut rest = file.take(bytes_max as u64 + 1);
    let mut content = Vec::new();
    for _ in 0..request.limit.unwrap_or(u32::MAX) {
        if rest.read_until(b'\n', &mut content).map_err(|error| failed(&error))? == 0 {
            break;
        }
    }
    let cut = rest.into_inner().into_inner().limit() == 0;
    if content.len() > bytes_max || cut {
        let words = format!("that is more than {bytes_max} bytes, or lies too far into the file; read it in parts, by line and limit");
        return Err(Error::new(i32::from(ErrorCode::InvalidParams), words));
    }
    match String::from_utf8(content) {
        Ok(content) => Ok(ReadTextFileResponse::new(content)),
        Err(_) => Err(Error::new(i32::from(ErrorCode::InvalidParams), format!("{} is not text in UTF-8", request.path.display()))),
    }
}

/// Writes a file, all of it, and makes it where it is not there.
pub(super) fn write(workspace: &Path, request: &WriteTextFileRequest, bytes_max: usize) -> Result<WriteTextFileResponse, Error> {
    if request.content.len() > bytes_max {
        let words = format!("the content is larger than {bytes_max} bytes");
        return Err(Error::new(i32::from(ErrorCode::InvalidParams), words));
    }
    let mut file = inside::create(workspace, &request.path).map_err(|error| refused(&request.path, &error))?;
    file.write_all(request.content.as_bytes()).map_err(|error| Error::internal_error().data(error.to_string()))?;
    Ok(WriteTextFileResponse::new())
}

fn refused(path: &Path, error: &inside::Error) -> Error {
    let code = match error {
        inside::Error::Outside => ErrorCode::InvalidParams,
        inside::Error::Missing => ErrorCode::ResourceNotFound,
        inside::Error::Io(_) => ErrorCode::InternalError,
    };
    Error::new(i32::from(code), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MAX: usize = 20;

    fn read_of(workspace: &Path, path: &str, line: Option<u32>, limit: Option<u32>) -> Result<String, Error> {
        let request = ReadTextFileRequest::new("s", path).line(line).limit(limit);
        read(workspace, &request, MAX, 100).map(|response| response.content)
    }

    fn write_of(workspace: &Path, path: &str, content: &str) -> Result<WriteTextFileResponse, Error> {
        write(workspace, &WriteTextFileRequest::new("s", path, content), MAX)
    }

    #[test]
    fn lines_are_counted_from_1_and_limited() {
        let root = tempfile::tempdir().unwrap();
        let check =
            |line, limit, expected: &str| assert_eq!(read_of(root.path(), "f", line, limit).unwrap(), expected, "{line:?} {limit:?}");
        std::fs::write(root.path().join("f"), "one\ntwo\r\nthree").unwrap();
        check(None, None, "one\ntwo\r\nthree");
        check(Some(1), Some(1), "one\n");
        check(Some(0), Some(1), "one\n");
        check(Some(2), None, "two\r\nthree");
        check(Some(2), Some(1), "two\r\n");
        check(Some(3), Some(9), "three");
        check(Some(4), None, "");
        check(Some(u32::MAX), None, "");
        check(None, Some(0), "");
        let absolute = root.path().join("f");
        assert_eq!(read_of(root.path(), absolute.to_str().unwrap(), Some(3), None).unwrap(), "three");
    }

    #[test]
    fn too_much_at_a_time_is_refused_and_can_be_read_in_parts() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), "12345678\n".repeat(5)).unwrap();
        assert!(read_of(root.path(), "f", None, None).unwrap_err().message.contains("by line and limit"));
        assert_eq!(read_of(root.path(), "f", Some(4), Some(2)).unwrap(), "12345678\n12345678\n");
        std::fs::write(root.path().join("fits"), "x".repeat(MAX)).unwrap();
        assert_eq!(read_of(root.path(), "fits", None, None).unwrap().len(), MAX);
        std::fs::write(root.path().join("large"), "x".repeat(MAX + 1)).unwrap();
        assert!(read_of(root.path(), "large", None, None).is_err());
        // Past what is gone through, the end of the file is not taken for its end.
        std::fs::write(root.path().join("long"), "12345678\n".repeat(50)).unwrap();
        assert!(read_of(root.path(), "long", Some(40), Some(1)).is_err());
        assert!(write_of(root.path(), "new", &"x".repeat(MAX + 1)).is_err());
        assert!(!root.path().join("new").exists());
    }

    #[test]
    fn what_is_written_is_there_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        write_of(root.path(), "a/b/c", "a long text").unwrap();
        write_of(root.path(), root.path().join("a/b/c").to_str().unwrap(), "short").unwrap();
        assert_eq!(read_of(root.path(), "a/b/c", None, None).unwrap(), "short");
    }

    #[test]
    fn no_path_leads_out_of_the_workspace() {
        let root = tempfile::tempdir().unwrap();
        let (workspace, secret) = (root.path().join("workspace"), root.path().join("secret"));
        std::fs::create_dir_all(workspace.join("real")).unwrap();
        std::fs::write(&secret, "secret").unwrap();
        symlink("../secret", workspace.join("link")).unwrap();
        symlink("../made", workspace.join("dangling")).unwrap();
        symlink("..", workspace.join("up")).unwrap();
        symlink("real", workspace.join("inner")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, workspace.join("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let paths =
            ["../secret", "real/../../secret", "link", "dangling", "up/secret", "up/made", "inner/file", "pipe", "real", "", ".", "/made"];
        for path in paths.into_iter().chain([secret.to_str().unwrap()]) {
            assert!(read_of(&workspace, path, None, None).is_err(), "{path}");
            assert!(write_of(&workspace, path, "overwritten").is_err(), "{path}");
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        assert!(!root.path().join("made").exists() && !workspace.join("real/file").exists());
        assert_eq!(read_of(&workspace, "nowhere", None, None).unwrap_err().code, ErrorCode::ResourceNotFound);
        std::fs::write(workspace.join("binary"), [0xff, 0xfe]).unwrap();
        assert!(read_of(&workspace, "binary", None, None).unwrap_err().message.contains("UTF-8"));
    }
}
