//! The OpenAPI document: what the routes say of themselves, and what is true of all of them.

use http::{HeaderMap, Method};
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, InfoBuilder, License, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::keys::{Access, access};
use crate::problem::{PROBLEM_JSON, Problem};

/// The name of the API key among the ways to say who calls.
const API_KEY: &str = "api_key";
/// What any route that takes a key may answer, whatever it does.
const REFUSALS: [(&str, &str); 3] = [
    ("401", "The instance asks for an API key, and this is none of its keys"),
    ("403", "The key does not have the role that this takes, or the request comes from a page of another origin"),
    ("429", "The key has sent as many requests as it may for now; `Retry-After` says when to come again"),
];

/// Completes the document that was put together from the routes.
pub(super) fn complete(document: &mut OpenApi) {
    document.info = about();
    // The router's sign for "the rest of the path" is none of OpenAPI's: a parameter has the name that it is described by.
    document.paths.paths =
        std::mem::take(&mut document.paths.paths).into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key, as `fte keys new` makes them")).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(API_KEY, SecurityScheme::Http(key));
    let mut schemas = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(operation_id(&method, path));
            tells_problems(operation);
            if access(&method, Some(path), &HeaderMap::new()) != Access::Open {
                refuses(operation);
            }
        }
    }
}

/// What generated clients call it: `get_v1_tasks_id_result`. The handlers' own names are one module's, and several have a `list`.
fn operation_id(method: &Method, path: &str) -> String {
    let words = path.split(['/', '-', '{', '}']).filter(|word| !word.is_empty());
    words.fold(method.as_str().to_lowercase(), |id, word| id + "_" + word)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, put, post, delete, .. } = item;
    [(Method::GET, get), (Method::PUT, put), (Method::POST, post), (Method::DELETE, delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Every error that says nothing of its body is a problem.
fn tells_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && response.content.is_empty()
        {
            response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(problem()));
        }
    }
}

fn problem() -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(&*Problem::name()))).build()
}

fn refuses(operation: &mut Operation) {
    for (status, what) in REFUSALS {
        let response = ResponseBuilder::new().description(what).content(PROBLEM_JSON, problem()).build();
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
    }
    // Without keys in force nobody has to show one.
    operation.security = Some(vec![SecurityRequirement::default(), SecurityRequirement::new(API_KEY, [] as [&str; 0])]);
}

fn about() -> Info {
    InfoBuilder::new()
        .title("FTE")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Digital full-time employees: post a task, watch it, get exactly one result, and prove every step."))
        .license(Some(License::new("Apache-2.0 OR MIT")))
        .build()
}
