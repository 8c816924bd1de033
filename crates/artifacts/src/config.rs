//! Where artifacts are kept, read once from the environment.

use std::path::PathBuf;

use fte_service::{ConfigError, Env};

/// Where artifacts are kept: the path of a directory, or `s3://bucket/prefix`. Default: `artifacts` in the data directory. Every runner and status of a
/// deployment must name the same.
///
/// For S3 the usual variables count: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (default: AWS), `AWS_REGION` or `AWS_DEFAULT_REGION` (default
/// `us-east-1`), `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; without keys, the role of the pod or machine.
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
    S3(S3Place),
}

impl Place {
    /// Reads the environment.
    pub fn from_env(env: &impl Env) -> Result<Self, ConfigError> {
        let Some(text) = env.get(ENV_ARTIFACTS) else { return Ok(Self::Data) };
        let refused = |expected: &str| Err(ConfigError::variable(ENV_ARTIFACTS, text.clone(), expected));
        match text.split_once("://") {
            None => Ok(Self::Directory(PathBuf::from(text))),
            #[cfg(feature = "s3")]
            Some(("s3", rest)) => S3Place::read(env, &text, rest).map(Self::S3),
            #[cfg(not(feature = "s3"))]
            Some(("s3", _)) => refused("the path of a directory: this program was built without S3 (feature `s3`)"),
            Some(_) => refused(EXPECTED),
        }
    }
}

#[cfg(feature = "s3")]
pub use self::s3::S3Place;

#[cfg(feature = "s3")]
mod s3 {
    use fte_service::{ConfigError, Env, Secret};
    use http::Uri;

    use super::{ENV_ALLOW_HTTP, ENV_ARTIFACTS, ENV_PATH_STYLE, EXPECTED};

    const ENDPOINT_OF_S3: &str = "AWS_ENDPOINT_URL_S3";
    const ENDPOINT: &str = "AWS_ENDPOINT_URL";
    const REGION: &str = "AWS_REGION";
    const REGION_BY_DEFAULT: &str = "AWS_DEFAULT_REGION";
    const KEY: &str = "AWS_ACCESS_KEY_ID";
    const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
    /// What else says who we are, passed on as it is.
    const IDENTITY: [&str; 8] = [
        "AWS_SESSION_TOKEN",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ENDPOINT_URL_STS",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ];

    /// A bucket, and how to come to it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct S3Place {
        pub(crate) bucket: String,
        /// Without slashes at its ends; empty: the bucket's top.
        pub(crate) prefix: String,
        pub(crate) region: String,
        /// As the client wants it: with the bucket's name in front where that is the style.
        pub(crate) endpoint: Option<String>,
        pub(crate) path_style: bool,
        /// Names as in the environment.
        pub(crate) identity: Vec<(&'static str, Secret)>,
    }

    impl S3Place {
        pub(super) fn read(env: &impl Env, text: &str, rest: &str) -> Result<Self, ConfigError> {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let plain = |text: &str, more: &[u8]| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte));
            let is_bucket = (1..=255).contains(&bucket.len()) && plain(bucket, b"-._");
            let is_prefix = prefix.len() <= 512
                && (prefix.is_empty() || prefix.split('/').all(|part| !["", ".", ".."].contains(&part) && plain(part, b"-._=")));
            if !is_bucket || !is_prefix {
                let expected = format!("{EXPECTED}, made of letters, digits, '-', '.' and '_'");
                return Err(ConfigError::variable(ENV_ARTIFACTS, text, expected));
            }
            let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, env.get(name)?)));
            let endpoint = first([ENDPOINT_OF_S3, ENDPOINT]);
            let path_style = env.parsed_or(ENV_PATH_STYLE, endpoint.is_some())?;
            let allow_http = env.parsed_or(ENV_ALLOW_HTTP, false)?;
            let region = match first([REGION, REGION_BY_DEFAULT]) {
                None => "us-east-1".to_owned(),
                Some((_, region)) if plain(&region, b"-") => region,
                Some((name, region)) => return Err(ConfigError::variable(name, region, "a region such as eu-central-1")),
            };
            let endpoint = endpoint.map(|(name, url)| endpoint_of(name, &url, allow_http, path_style, bucket)).transpose()?;
            Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), region, endpoint, path_style, identity: identity(env)? })
        }
    }

    fn endpoint_of(name: &str, url: &str, allow_http: bool, path_style: bool, bucket: &str) -> Result<String, ConfigError> {
        let refused = |expected: String| Err(ConfigError::variable(name, url, expected));
        let usual = || "a URL such as https://s3.example.com, without a user, a path or a query".to_owned();
        let Ok(uri) = url.trim_end_matches('/').parse::<Uri>() else { return refused(usual()) };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return refused(usual()) };
        if !["", "/"].contains(&uri.path()) || uri.query().is_some() || authority.as_str().contains('@') {
            return refused(usual());
        }
        match scheme {
            "https" => {}
            "http" if allow_http => {}
            "http" => return refused(format!("https://, or {ENV_ALLOW_HTTP}=true where the network between is yours alone")),
            _ => return refused(usual()),
        }
        Ok(if path_style { format!("{scheme}://{authority}") } else { format!("{scheme}://{bucket}.{authority}") })
    }

    /// Who we are. No value is ever shown.
    fn identity(env: &impl Env) -> Result<Vec<(&'static str, Secret)>, ConfigError> {
        let given = |name: &'static str| env.get(name).map(|value| (name, Secret::new(value)));
        let (key, secret) = (given(KEY), given(SECRET));
        for (name, is_missing) in [(KEY, key.is_none()), (SECRET, secret.is_none())] {
            if is_missing && (key.is_some() || secret.is_some()) {
                return Err(ConfigError::variable(name, "", format!("a value, since {KEY} and {SECRET} go together")));
            }
        }
        Ok([key, secret].into_iter().chain(IDENTITY.map(given)).flatten().collect())
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
    fn an_s3_place_is_read_with_the_usual_variables() {
        let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
        let place = |more: &[(&str, &str)]| match read(&[&keys, more].concat()).unwrap() {
            Place::S3(place) => place,
            other => panic!("{other:?}"),
        };
        let aws = place(&[(ENV_ARTIFACTS, "s3://bucket")]);
        assert_eq!((aws.bucket.as_str(), aws.prefix.as_str(), aws.region.as_str()), ("bucket", "", "us-east-1"));
        assert_eq!((aws.endpoint, aws.path_style), (None, false));
        let own = [(ENV_ARTIFACTS, "s3://bucket/a/b/"), ("AWS_ENDPOINT_URL", "https://s3.example.com:9000/"), ("AWS_REGION", "eu-1")];
        let own_place = place(&own);
        assert_eq!((own_place.prefix.as_str(), own_place.endpoint.as_deref()), ("a/b", Some("https://s3.example.com:9000")));
        assert!(own_place.path_style && !format!("{own_place:?}").contains("hunter2"));
        let hosted = place(&[own.as_slice(), &[(ENV_PATH_STYLE, "false")]].concat());
        assert_eq!(hosted.endpoint.as_deref(), Some("https://bucket.s3.example.com:9000"));
        let plain = [(ENV_ARTIFACTS, "s3://bucket"), ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"), (ENV_ALLOW_HTTP, "true")];
        assert_eq!(place(&plain).endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bad_value_is_refused_by_name() {
        let check = |name: &str, pairs: &[(&str, &str)]| {
            let error = read(&[&[(ENV_ARTIFACTS, "s3://bucket")], pairs].concat()).unwrap_err();
            assert!(error.starts_with(&format!("{name}=")) && error.contains("expected"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        for place in ["gs://bucket", "s3://", "s3://b/../c", "s3://b/c//d", "s3://b/ü", "s3://b?x=1"] {
            check(ENV_ARTIFACTS, &[(ENV_ARTIFACTS, place)]);
        }
        check("AWS_SECRET_ACCESS_KEY", &[("AWS_ACCESS_KEY_ID", "id")]);
        check("AWS_ACCESS_KEY_ID", &[("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        check("AWS_REGION", &[("AWS_REGION", "eu 1")]);
        check("AWS_ENDPOINT_URL", &[("AWS_ENDPOINT_URL", "s3.example.com")]);
        check("AWS_ENDPOINT_URL", &[("AWS_ENDPOINT_URL", "https://s3.example.com/path")]);
        check("AWS_ENDPOINT_URL_S3", &[("AWS_ENDPOINT_URL_S3", "http://s3.example.com")]);
        check(ENV_PATH_STYLE, &[(ENV_PATH_STYLE, "perhaps")]);
        check(ENV_ALLOW_HTTP, &[(ENV_ALLOW_HTTP, "1")]);
    }
}
