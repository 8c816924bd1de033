//! Where artifacts are kept, read once from the environment.

use std::path::PathBuf;

use fte_service::{ConfigError, Env};

/// Where artifacts are kept: the path of a directory, or `s3://bucket/prefix` (see `fte_s3::Place` for what else counts). Default: `artifacts` in the data
/// directory. Every runner and status of a deployment must name the same.
pub const ENV_ARTIFACTS: &str = "FTE_ARTIFACTS";
/// `false` puts the bucket's name in front of the endpoint's, `true` after it. Default: `true` with an endpoint of one's own, `false` at AWS.
pub const ENV_PATH_STYLE: &str = "FTE_ARTIFACTS_PATH_STYLE";
/// `true` lets an endpoint be `http://`. Default `false`: artifacts and signatures would go over the network for anyone to read.
pub const ENV_ALLOW_HTTP: &str = "FTE_ARTIFACTS_ALLOW_HTTP";

const EXPECTED: &str = "the path of a directory, or s3://bucket or s3://bucket/prefix";

/// Where artifacts are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// `artifacts` in the data directory.
    #[default]
    Data,
    /// A directory that may be shared.
    Directory(PathBuf),
    /// An S3-compatible store.
    #[cfg(feature = "s3")]
    S3(fte_s3::Place),
}

impl Place {
    /// Reads the environment.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        // What is said in vain is said wrongly all the same.
        env.parsed::<bool>(ENV_PATH_STYLE)?;
        env.parsed::<bool>(ENV_ALLOW_HTTP)?;
        let Some(text) = env.get(ENV_ARTIFACTS) else { return Ok(Self::Data) };
        let refused = |expected: &str| Err(ConfigError::variable(ENV_ARTIFACTS, text.clone(), expected));
        match text.split_once("://") {
            None => Ok(Self::Directory(PathBuf::from(text))),
            #[cfg(feature = "s3")]
            Some(("s3", _)) => {
                let variables = fte_s3::Variables { place: ENV_ARTIFACTS, path_style: ENV_PATH_STYLE, allow_http: ENV_ALLOW_HTTP };
                fte_s3::Place::read(env, &text, variables).map(Self::S3)
            }
            #[cfg(not(feature = "s3"))]
            Some(("s3", _)) => refused("the path of a directory: this program was built without S3 (feature `s3`)"),
            Some(_) => refused(EXPECTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use fte_service::MapEnv;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Place, String> {
        let env = MapEnv(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        Place::from_env(&env).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_is_a_directory_and_nothing_is_the_data_directory() {
        assert_eq!(read(&[]), Ok(Place::Data));
        assert_eq!(read(&[(ENV_ARTIFACTS, "/mnt/shared")]), Ok(Place::Directory("/mnt/shared".into())));
        assert_eq!(read(&[(ENV_ARTIFACTS, "kept/here")]), Ok(Place::Directory("kept/here".into())));
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_build_without_s3_says_so() {
        assert!(read(&[(ENV_ARTIFACTS, "s3://bucket")]).unwrap_err().contains("built without S3"));
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bucket_is_named_and_what_is_neither_is_refused_by_name() {
        let Ok(Place::S3(place)) = read(&[(ENV_ARTIFACTS, "s3://bucket/a")]) else { panic!("no bucket") };
        assert_eq!((place.bucket.as_str(), place.prefix.as_str()), ("bucket", "a"));
        for (name, pairs) in [
            (ENV_ARTIFACTS, &[(ENV_ARTIFACTS, "gs://bucket")][..]),
            (ENV_ARTIFACTS, &[(ENV_ARTIFACTS, "s3://")]),
            (ENV_PATH_STYLE, &[(ENV_ARTIFACTS, "s3://bucket"), (ENV_PATH_STYLE, "perhaps")]),
            (ENV_ALLOW_HTTP, &[(ENV_ARTIFACTS, "s3://bucket"), (ENV_ALLOW_HTTP, "1")]),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.starts_with(&format!("{name}=")) && error.contains("expected"), "{error}");
        }
    }
}
