use std::os::unix::fs::symlink;

use fte_artifacts::Place;
use rustix::fs::{CWD, Mode};

use super::*;

struct Fixture {
    root: tempfile::TempDir,
    store: ArtifactStore,
}

impl Fixture {
    fn new(bytes_max: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("workspace/deep")).unwrap();
        std::fs::write(root.path().join("secret"), "secret").unwrap();
        let store = ArtifactStore::new(Artifacts::open(&Place::Data, root.path()).unwrap(), bytes_max);
        Self { root, store }
    }

    fn workspace(&self) -> PathBuf {
        self.root.path().join("workspace")
    }

    async fn keep(&self, path: &str) -> Result<Artifact, ArtifactError> {
        self.store.keep_file(self.workspace(), path.to_owned(), None, None).await
    }

    fn leftovers(&self) -> usize {
        std::fs::read_dir(self.root.path().join("artifacts/tmp")).unwrap().count()
    }
}

#[tokio::test]
async fn a_file_is_kept_under_its_digest() {
    let fixture = Fixture::new(100);
    std::fs::write(fixture.workspace().join("deep/abc.txt"), "abc").unwrap();
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let absolute = fixture.workspace().join("deep/abc.txt");
    for path in ["deep/abc.txt", "./deep/./abc.txt", absolute.to_str().unwrap()] {
        let artifact = fixture.keep(path).await.unwrap();
        assert_eq!((artifact.name.as_str(), artifact.content_type.as_str(), artifact.size_bytes), ("abc.txt", "text/plain", 3));
        assert_eq!((artifact.sha256.as_str(), artifact.uri), (digest, format!("artifact:sha256/{digest}")));
    }
    let shelf = std::fs::read_dir(fixture.root.path().join("artifacts/sha256/ba")).unwrap();
    let kept: Vec<PathBuf> = shelf.map(|entry| entry.unwrap().path()).collect();
    assert_eq!((kept.len(), std::fs::read_to_string(&kept[0]).unwrap().as_str()), (1, "abc"));
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test]
async fn no_name_leads_out_of_the_workspace() {
    let fixture = Fixture::new(100);
    let workspace = fixture.workspace();
    symlink("../secret", workspace.join("link")).unwrap();
    symlink("..", workspace.join("up")).unwrap();
    std::fs::write(workspace.join("deep/real"), "real").unwrap();
    symlink("deep", workspace.join("inner")).unwrap();
    let pipe = workspace.join("pipe");
    rustix::fs::mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let secret = fixture.root.path().join("secret");
    let paths =
        ["../secret", "deep/../../secret", "link", "up/secret", "inner/real", "deep", "", ".", "/etc/passwd", "pipe", "deep/real/x"];
    for path in paths.into_iter().chain([secret.to_str().unwrap()]) {
        let error = fixture.keep(path).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Outside { .. }), "{path}: {error}");
    }
    assert!(matches!(fixture.keep("nowhere").await.unwrap_err(), ArtifactError::Missing { .. }));
    assert!(!fixture.root.path().join("artifacts/sha256").exists());
}

#[tokio::test]
async fn a_file_past_the_limit_leaves_nothing_behind() {
    let fixture = Fixture::new(100);
    std::fs::write(fixture.workspace().join("fits"), vec![0; 100]).unwrap();
    std::fs::write(fixture.workspace().join("large"), vec![0; 101]).unwrap();
    assert_eq!(fixture.keep("fits").await.unwrap().size_bytes, 100);
    assert!(matches!(
        fixture.keep("large").await.unwrap_err(),
        ArtifactError::NotKept { source: KeepError::TooLarge { bytes_max: 100 }, .. }
    ));
    assert_eq!(fixture.leftovers(), 0);
}
