//! A bucket by its name and the variables of the environment, read once.

use fte_service::{ConfigError, Env, Secret};
use http::Uri;

/// What a place is called.
pub const EXPECTED: &str = "s3://bucket or s3://bucket/prefix";

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

/// The variables that are about one place alone, by their names.
#[derive(Clone, Copy, Debug)]
pub struct Variables {
    /// Names the place.
    pub place: &'static str,
    /// `false` puts the bucket's name in front of the endpoint's, `true` after it. Default: `true` with an endpoint of one's own, `false` at AWS.
    pub path_style: &'static str,
    /// `true` lets an endpoint be `http://`. Default `false`: what is kept, and signatures, would go over the network for anyone to read.
    pub allow_http: &'static str,
}

/// A bucket, and how to come to it.
///
/// The usual variables count: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (default: AWS), `AWS_REGION` or `AWS_DEFAULT_REGION` (default `us-east-1`),
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; without keys, the role of the pod or machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    /// Without slashes at its ends; empty: the bucket's top.
    pub prefix: String,
    pub region: String,
    /// As the client wants it: with the bucket's name in front where that is the style.
    pub endpoint: Option<String>,
    pub path_style: bool,
    /// Names as in the environment.
    pub(crate) identity: Vec<(&'static str, Secret)>,
}

impl Place {
    /// Reads the name of a place, `s3://bucket/prefix`, and the environment.
    ///
    /// # Errors
    /// The name of the variable that is wrong, and what was expected of it.
    pub fn read(env: &impl Env, text: &str, variables: Variables) -> Result<Self, ConfigError> {
        let refused = |expected: String| ConfigError::variable(variables.place, text, expected);
        let rest = text.strip_prefix("s3://").ok_or_else(|| refused(EXPECTED.to_owned()))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let plain = |text: &str, more: &[u8]| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte));
        let is_bucket = (1..=255).contains(&bucket.len()) && plain(bucket, b"-._");
        let is_prefix = prefix.len() <= 512
            && (prefix.is_empty() || prefix.split('/').all(|part| !["", ".", ".."].contains(&part) && plain(part, b"-._=")));
        if !is_bucket || !is_prefix {
            return Err(refused(format!("{EXPECTED}, made of letters, digits, '-', '.' and '_'")));
        }
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, env.get(name)?)));
        let endpoint = first([ENDPOINT_OF_S3, ENDPOINT]);
        let path_style = env.parsed_or(variables.path_style, endpoint.is_some())?;
        let allow_http = env.parsed_or(variables.allow_http, false)?.then_some(()).ok_or(variables.allow_http);
        let region = match first([REGION, REGION_BY_DEFAULT]) {
            None => "us-east-1".to_owned(),
            Some((_, region)) if plain(&region, b"-") => region,
            Some((name, region)) => return Err(ConfigError::variable(name, region, "a region such as eu-central-1")),
        };
        let endpoint = endpoint.map(|(name, url)| endpoint_of(name, &url, allow_http, path_style, bucket)).transpose()?;
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), region, endpoint, path_style, identity: identity(env)? })
    }
}

/// `allow_http` is the name of the variable that would allow it, where that does not.
fn endpoint_of(name: &str, url: &str, allow_http: Result<(), &str>, path_style: bool, bucket: &str) -> Result<String, ConfigError> {
    let refused = |expected: String| Err(ConfigError::variable(name, url, expected));
    let usual = || "a URL such as https://s3.example.com, without a user, a path or a query".to_owned();
    let Ok(uri) = url.trim_end_matches('/').parse::<Uri>() else { return refused(usual()) };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return refused(usual()) };
    if !["", "/"].contains(&uri.path()) || uri.query().is_some() || authority.as_str().contains('@') {
        return refused(usual());
    }
    match (scheme, allow_http) {
        ("https", _) | ("http", Ok(())) => {}
        ("http", Err(variable)) => return refused(format!("https://, or {variable}=true where the network between is yours alone")),
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

#[cfg(test)]
mod tests {
    use fte_service::MapEnv;

    use super::*;

    const VARIABLES: Variables = Variables { place: "PLACE", path_style: "PATH_STYLE", allow_http: "ALLOW_HTTP" };

    fn read(text: &str, pairs: &[(&str, &str)]) -> Result<Place, String> {
        let env = MapEnv(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        Place::read(&env, text, VARIABLES).map_err(|error| error.to_string())
    }

    #[test]
    fn a_place_is_read_with_the_usual_variables() {
        let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
        let place = |text: &str, more: &[(&str, &str)]| read(text, &[&keys, more].concat()).unwrap();
        let aws = place("s3://bucket", &[]);
        assert_eq!((aws.bucket.as_str(), aws.prefix.as_str(), aws.region.as_str()), ("bucket", "", "us-east-1"));
        assert_eq!((aws.endpoint, aws.path_style), (None, false));
        let own = [("AWS_ENDPOINT_URL", "https://s3.example.com:9000/"), ("AWS_REGION", "eu-1")];
        let own_place = place("s3://bucket/a/b/", &own);
        assert_eq!((own_place.prefix.as_str(), own_place.endpoint.as_deref()), ("a/b", Some("https://s3.example.com:9000")));
        assert!(own_place.path_style && !format!("{own_place:?}").contains("hunter2"));
        let hosted = place("s3://bucket", &[own.as_slice(), &[("PATH_STYLE", "false")]].concat());
        assert_eq!(hosted.endpoint.as_deref(), Some("https://bucket.s3.example.com:9000"));
        let plain = [("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"), ("ALLOW_HTTP", "true")];
        assert_eq!(place("s3://bucket", &plain).endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    }

    #[test]
    fn a_bad_value_is_refused_by_name() {
        let check = |name: &str, text: &str, pairs: &[(&str, &str)]| {
            let error = read(text, pairs).unwrap_err();
            assert!(error.starts_with(&format!("{name}=")) && error.contains("expected"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        for place in ["gs://bucket", "s3://", "s3://b/../c", "s3://b/c//d", "s3://b/ü", "s3://b?x=1"] {
            check("PLACE", place, &[]);
        }
        let check = |name: &str, pairs: &[(&str, &str)]| check(name, "s3://bucket", pairs);
        check("AWS_SECRET_ACCESS_KEY", &[("AWS_ACCESS_KEY_ID", "id")]);
        check("AWS_ACCESS_KEY_ID", &[("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        check("AWS_REGION", &[("AWS_REGION", "eu 1")]);
        check("AWS_ENDPOINT_URL", &[("AWS_ENDPOINT_URL", "s3.example.com")]);
        check("AWS_ENDPOINT_URL", &[("AWS_ENDPOINT_URL", "https://s3.example.com/path")]);
        check("AWS_ENDPOINT_URL_S3", &[("AWS_ENDPOINT_URL_S3", "http://s3.example.com")]);
        check("PATH_STYLE", &[("PATH_STYLE", "perhaps")]);
        check("ALLOW_HTTP", &[("ALLOW_HTTP", "1")]);
    }
}
