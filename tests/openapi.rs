//! The document of the API, held against the API of the real binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::http::ask;
use support::{Daemon, Sandbox};

/// Methods that an operation can have.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn settings(sandbox: &Sandbox, api: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\n[api]\nlisten = \"127.0.0.1:0\"\n{api}\n[log]\nlevel = \"debug\"\n"
    );
    sandbox.write("gannet.toml", text);
}

/// Path, method and description of each operation.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{path}: {method}");
            all.push((path.as_str(), method.as_str(), operation));
        }
    }
    all
}

/// The names between braces.
fn names(path: &str) -> BTreeSet<&str> {
    path.split('{')
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap())
        .collect()
}

/// Every `$ref` below `value`.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole_in_itself() {
    let sandbox = Sandbox::new();
    settings(&sandbox, "");
    let daemon = Daemon::start(&sandbox);
    let got = daemon.get("/openapi.json").expect(200);
    assert_eq!(got.header("content-type"), Some("application/json"));
    let document = got.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let tags = document["tags"].as_array().unwrap().iter();
    let tags: BTreeSet<_> = tags.map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "`{id}` is there twice");
        let summary = operation["summary"].as_str().unwrap();
        assert!(!summary.ends_with('.'), "{id}: {summary}");
        let own = operation["tags"].as_array().unwrap();
        assert!(
            matches!(&own[..], [tag] if tags.contains(tag.as_str().unwrap())),
            "{id}: {own:?}"
        );
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let in_path: BTreeSet<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(in_path, names(path), "{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses.keys().any(|status| status.as_str() < "400"),
            "{id}"
        );
        for (status, response) in responses {
            assert!(response["description"].is_string(), "{id}: {status}");
            if status.as_str() >= "400" {
                let content = &response["content"]["application/problem+json"];
                assert_eq!(
                    content["schema"]["$ref"], "#/components/schemas/Problem",
                    "{id}: {status}"
                );
                assert_eq!(content["example"]["status"].to_string(), *status, "{id}");
            }
        }
        if ["/api/", "/files/", "/metrics"]
            .iter()
            .any(|own| path.starts_with(own))
        {
            let schemes = operation["security"].as_array().unwrap();
            assert!(schemes[0]["bearer"].is_array(), "{id}: {schemes:?}");
            assert!(
                responses.contains_key("401") && responses.contains_key("403"),
                "{id}"
            );
        } else {
            assert_eq!(operation["security"], serde_json::json!([]), "{id}");
        }
    }
}

/// Where a union stands, and where a type may be an object or null.
fn unplain(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let is_union = ["oneOf", "anyOf", "allOf"]
                .iter()
                .any(|key| map.contains_key(*key));
            // `/components/schemas/NAME`
            if is_union && path.matches('/').count() != 3 {
                found.push(format!("{path}: a union without a name"));
            }
            if let Some(Value::Array(types)) = map.get("type")
                && types.iter().any(|one| one == "object" || one == "array")
            {
                found.push(format!("{path}: {types:?}"));
            }
            for (key, value) in map {
                unplain(value, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                unplain(item, &format!("{path}/{n}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn generators_of_clients_understand_the_document() {
    let sandbox = Sandbox::new();
    settings(&sandbox, "");
    let daemon = Daemon::start(&sandbox);
    let document = daemon.get("/openapi.json").json();
    let mut found = Vec::new();
    for part in ["paths", "components"] {
        unplain(&document[part], &format!("/{part}"), &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(document["servers"][0]["url"], "/");
    // A JSON body is a component.
    for (path, method, operation) in operations(&document) {
        let content = &operation["requestBody"]["content"]["application/json"];
        assert!(
            content.is_null() || content["schema"]["$ref"].is_string(),
            "{method} {path}"
        );
    }
    // What is always sent may be null; what is left out may not.
    let job = &document["components"]["schemas"]["Job"];
    let required = job["required"].as_array().unwrap();
    assert!(required.iter().any(|name| name == "finished"));
    let types = |name: &str| job["properties"][name]["type"].clone();
    assert_eq!(types("finished"), serde_json::json!(["string", "null"]));
    assert_eq!(types("schedule"), "string");
    let pages = document["components"]["schemas"].as_object().unwrap();
    for (name, page) in pages.iter().filter(|(name, _)| name.starts_with("Page_")) {
        let items = &page["properties"]["items"]["items"];
        assert!(items["$ref"].is_string(), "{name}: {items}");
    }
}

#[test]
fn what_the_document_has_is_there() {
    let sandbox = Sandbox::new();
    settings(&sandbox, "");
    let daemon = Daemon::start(&sandbox);
    let document = daemon.get("/openapi.json").json();
    for (path, _, _) in operations(&document) {
        // None of the methods that an operation can have, so a path that is there says what it takes.
        let target = path.replace(['{', '}'], "");
        let got = ask(daemon.api(), "PROPFIND", &target, &[]);
        let allowed = got.header("allow").unwrap_or_default().to_ascii_lowercase();
        let allowed: BTreeSet<_> = allowed
            .split(',')
            .filter(|method| *method != "head")
            .collect();
        let item = document["paths"][path].as_object().unwrap();
        let described: BTreeSet<_> = item.keys().map(String::as_str).collect();
        assert_eq!(allowed, described, "{path}");
        got.problem(405);
    }
}

/// The document is made of what `routes!` takes, so a route that comes in by another way is not in it.
#[test]
fn no_route_goes_by_the_document() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let mut lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let by = lines.find(|line| line.contains(".route(") || line.contains(".nest("));
            assert!(by.is_none(), "{}: {by:?}", path.display());
        }
    }
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let sandbox = Sandbox::new();
    settings(
        &sandbox,
        "tokens.a = { token = \"reader-0123456789abcdef\", scopes = [\"read\"] }",
    );
    let daemon = Daemon::start(&sandbox);
    let got = daemon.get("/docs").expect(308);
    assert_eq!(got.header("location"), Some("docs/"));
    let got = daemon.get("/docs/").expect(200);
    assert_eq!(got.header("content-type"), Some("text/html"));
    let policy = got.header("content-security-policy").unwrap().to_owned();
    for part in policy.split(';').map(str::trim) {
        let (name, sources) = part.split_once(' ').unwrap();
        for source in sources.split(' ') {
            let is_inline_style = name == "style-src" && source == "'unsafe-inline'";
            let is_own = ["'none'", "'self'", "data:"].contains(&source);
            assert!(is_own || is_inline_style, "{part}");
        }
    }
    for file in [
        "index.css",
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-initializer.js",
    ] {
        let got = daemon.get(&format!("/docs/{file}")).expect(200);
        assert_eq!(
            got.header("content-security-policy"),
            Some(policy.as_str()),
            "{file}"
        );
        assert_eq!(
            got.header("x-content-type-options"),
            Some("nosniff"),
            "{file}"
        );
        assert!(!got.body.is_empty());
    }
    daemon.get("/docs/none.js").problem(404);
    daemon.get("/openapi.json").expect(200);
}

#[test]
fn document_and_page_can_be_left_out() {
    let sandbox = Sandbox::new();
    settings(&sandbox, "docs = false");
    let daemon = Daemon::start(&sandbox);
    for path in ["/openapi.json", "/docs", "/docs/", "/docs/index.css"] {
        daemon.get(path).problem(404);
    }
    daemon.get("/healthz").expect(200);
}
