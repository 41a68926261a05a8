//! The document of the API (OpenAPI 3.1), made of what stands at its handlers, and a page that shows it.
//!
//! A handler says what is its own: `#[utoipa::path(…)]` with its method, path, `operation_id`, tag, parameters, what it
//! answers when it can, and a line for each status of its own problems. What any of them may answer is added here: what
//! problems look like, those of every request, and what a scope takes.
//!
//! The document is written so that generators of clients understand it: each union is a component with a name, and what is
//! left out where it has no value is not said to be null besides.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use utoipa::Number;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::response::Response as Described;
use utoipa::openapi::schema::{Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr};
use utoipa::{OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, serve};

use super::access::Scope;
use super::{Api, Document, Problem};

/// What every operation may answer besides its own, and when.
const OF_ALL: [(StatusCode, &str); 4] = [
    (
        StatusCode::BAD_REQUEST,
        "A parameter is unknown, or is not as it has to be.",
    ),
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        "The body of the request is larger than what is taken.",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "Something that the operator has to see to; the log says what.",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "The daemon is stopping, or something that it needs does not answer at the moment.",
    ),
];

/// What an operation that takes a scope may answer besides.
const OF_SCOPES: [(StatusCode, &str); 3] = [
    (
        StatusCode::UNAUTHORIZED,
        "There is no token, or nobody has it.",
    ),
    (
        StatusCode::FORBIDDEN,
        "The token lacks the scope. Without tokens: the request does not mean this machine, or is another site's.",
    ),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "These are more than `api.rate` allows; `Retry-After` says when to come back.",
    ),
];

const PROBLEM: &str = "application/problem+json";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "gannet",
        description = "Jobs, schedules, albums and files. Errors are problem documents (RFC 9457). Lists come page by page: \
                       `next` of one is the `cursor` of the following, and null on the last.",
    ),
    tags(
        (name = "jobs", description = "Passes over a source, and what became of their targets."),
        (name = "schedules", description = "What runs on its own, and when."),
        (name = "albums", description = "Named sets of files."),
        (name = "images", description = "Files of any kind, what is known of them, and their bytes."),
        (name = "service", description = "Whether the daemon can do its work, and these documents."),
    ),
    servers((url = "/", description = "The daemon that sends this document.")),
    components(schemas(Document)),
)]
struct Base;

/// Bytes of any kind.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(super) struct Binary(());

/// A router and its document, which begins with what all share.
pub(super) fn begin() -> OpenApiRouter<Api> {
    let mut document = Base::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", scheme);
    OpenApiRouter::with_openapi(document)
}

/// Says of every route of `router` that it takes `scope`.
pub(super) fn takes(mut router: OpenApiRouter<Api>, scope: Scope) -> OpenApiRouter<Api> {
    for operation in operations(router.get_openapi_mut()) {
        let bearer = SecurityRequirement::new("bearer", [scope.as_str()]);
        // None is needed while there are no tokens.
        operation.security = Some(vec![bearer, SecurityRequirement::default()]);
        OF_SCOPES
            .iter()
            .for_each(|each| may_answer(operation, each));
    }
    router
}

/// The router, with its document and a page that shows it when they are wanted.
pub(super) fn end(router: OpenApiRouter<Api>, with_docs: bool) -> Router<Api> {
    let router = match with_docs {
        true => router
            .routes(routes!(document))
            .routes(routes!(page))
            .routes(routes!(start))
            .routes(routes!(part)),
        false => router,
    };
    let (router, document) = router.split_for_parts();
    if !with_docs {
        return router;
    }
    match serde_json::to_value(complete(document)) {
        Ok(mut document) => {
            be_plain(&mut document);
            name_items(&mut document);
            let text = document.to_string();
            // What the descriptions of types call by its Rust name.
            let text = text
                .replace("`None`", "null")
                .replace("[`", "`")
                .replace("`]", "`");
            router.layer(Extension(Text(Bytes::from(text))))
        }
        Err(error) => {
            tracing::error!("cannot write the document of the API: {error}");
            router
        }
    }
}

fn complete(mut document: OpenApi) -> OpenApi {
    // The page is for people, and shows all else.
    let paths = &mut document.paths.paths;
    paths.retain(|path, _| !path.starts_with("/docs"));
    for operation in operations(&mut document) {
        // Without a scope, it is open.
        operation.security.get_or_insert_default();
        OF_ALL.iter().for_each(|each| may_answer(operation, each));
        for parameter in operation.parameters.iter_mut().flatten() {
            if let RefOr::T(Parameter {
                schema: Some(RefOr::T(Schema::Object(object))),
                ..
            }) = parameter
            {
                be_exact(object);
            }
        }
        for (status, response) in &mut operation.responses.responses {
            if let (Ok(status), RefOr::T(response)) = (status.parse(), response) {
                fill(status, response);
            }
        }
    }
    // A wildcard is a parameter that may hold `/`.
    let paths = std::mem::take(&mut document.paths.paths);
    let plain = |(path, item): (String, PathItem)| (path.replace("{*", "{"), item);
    document.paths.paths = paths.into_iter().map(plain).collect();
    document
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    let items = document.paths.paths.values_mut();
    items
        .flat_map(|item| {
            [
                &mut item.get,
                &mut item.put,
                &mut item.post,
                &mut item.delete,
                &mut item.patch,
            ]
        })
        .flatten()
}

/// Notes a status, unless the operation has something of its own to say of it.
fn may_answer(operation: &mut Operation, (status, when): &(StatusCode, &str)) {
    let responses = &mut operation.responses.responses;
    let common = || RefOr::T(Described::new(*when));
    responses
        .entry(status.as_str().to_owned())
        .or_insert_with(common);
}

/// A parameter that is not there is not null, and a number has an end.
fn be_exact(object: &mut Object) {
    if let SchemaType::Array(types) = &object.schema_type
        && let [one, Type::Null] | [Type::Null, one] = types.as_slice()
    {
        object.schema_type = SchemaType::Type(one.clone());
    }
    let is_whole = object.schema_type == SchemaType::Type(Type::Integer);
    if is_whole && object.minimum.is_some() && object.maximum.is_none() {
        // As `u32` and `u64` are described, also where they are parsed as what has room for both.
        object.maximum = Some(Number::UInt(usize::MAX));
        object.format = None;
    }
}

/// Says of no member that it may be null where it is left out instead: many generators know no type that is an object or
/// null, and one of two schemas without a name. An object of which nothing is said may have any members.
fn be_plain(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(be_plain),
        Value::Object(map) => {
            let required = map.get("required").cloned().unwrap_or_default();
            let is_required = |name: &str| {
                let names = required.as_array();
                names.is_some_and(|names| names.iter().any(|one| one == name))
            };
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                let optional = properties.iter_mut().filter(|(name, _)| !is_required(name));
                optional.for_each(|(_, schema)| forbid_null(schema));
            }
            let is_free = map.get("type").is_some_and(|one| one == "object")
                && !map.contains_key("properties");
            if is_free {
                map.entry("additionalProperties").or_insert(true.into());
            }
            map.values_mut().for_each(be_plain);
        }
        _ => {}
    }
}

fn forbid_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = &types[..] {
            schema["type"] = one.clone();
        }
    }
    if let Some(Value::Array(schemas)) = schema.get_mut("oneOf") {
        schemas.retain(|one| one["type"] != "null");
        if let [one] = &schemas[..] {
            *schema = one.clone();
        }
    }
}

/// Has the items of each page be the component that they are.
fn name_items(document: &mut Value) {
    let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") else {
        return;
    };
    let names: Vec<String> = schemas.keys().cloned().collect();
    for (page, schema) in schemas {
        let item = page.strip_prefix("Page_");
        if let Some(item) = item.filter(|item| names.iter().any(|name| name == item))
            && let Some(items) = schema.pointer_mut("/properties/items/items")
        {
            *items = json!({ "$ref": format!("#/components/schemas/{item}") });
        }
    }
}

/// Says of an error that it is a problem document.
fn fill(status: u16, response: &mut Described) {
    // Each event is something else.
    if let Some(RefOr::T(events)) = response.content.get_mut("text/event-stream") {
        events.schema = None;
    }
    if status < 400 || !response.content.is_empty() {
        return;
    }
    let title = StatusCode::from_u16(status).ok();
    let title = title.and_then(|status| status.canonical_reason());
    let example = json!({ "title": title, "status": status, "detail": response.description });
    let mut content = Content::new(Some(Ref::from_schema_name("Problem")));
    content.example = Some(example);
    response.content.insert(PROBLEM.to_owned(), content.into());
}

/// The document as it is sent.
#[derive(Debug, Clone)]
struct Text(Bytes);

/// This document
#[utoipa::path(get, path = "/openapi.json", operation_id = "getDocument", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
async fn document(Extension(Text(text)): Extension<Text>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// To the page that shows this document
#[utoipa::path(get, path = "/docs", operation_id = "goToDocs", tag = "service",
    responses((status = 308, description = "It is at `/docs/`.")))]
async fn page() -> Redirect {
    Redirect::permanent("docs/")
}

/// A page that shows this document
#[utoipa::path(get, path = "/docs/", operation_id = "showDocs", tag = "service",
    responses((status = 200, description = "The page.", content_type = "text/html", body = String)))]
async fn start() -> Result<Response, Problem> {
    asset("index.html")
}

/// What that page is made of
#[utoipa::path(get, path = "/docs/{file}", operation_id = "getDocsFile", tag = "service",
    params(("file" = String, Path, description = "One of the names in the page.", example = "index.css")),
    responses(
        (status = 200, description = "A script, a style or a picture.", content_type = "*/*", body = inline(Binary)),
        (status = 404, description = "There is no such file."),
    ))]
async fn part(
    file: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Problem> {
    let Path(file) = file.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    asset(&file)
}

/// Nothing is loaded from elsewhere, and no script runs but those files. Styles are what the page sets as it draws.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

fn asset(name: &str) -> Result<Response, Problem> {
    // Beside the page, also where a proxy puts a folder before both.
    let config = Config::from("../openapi.json").validator_url("none");
    let found = serve(name, Arc::new(config)).map_err(|error| {
        tracing::error!("cannot send `/docs/{name}`: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    })?;
    let Some(file) = found else {
        return Err(Problem::not_found(format!("there is no `/docs/{name}`")));
    };
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_str(&file.content_type);
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind.unwrap_or(octets));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("max-age=3600"),
    );
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
