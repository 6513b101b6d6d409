//! The paths of the admin address, each with its methods and what answers it. `openapi.json` describes them, and
//! a test holds one against the other.

use super::{Admin, AdminTable, Page, events, fields, health, live, metrics, named, page, quarantine, replay, requeue};
use super::{stats, version};
use crate::http::{Head, Method, Status};

/// The description of both addresses, OpenAPI 3.1.
const OPENAPI: &str = include_str!("openapi.json");

/// A path, or a template of paths, as `openapi.json` writes it.
pub(super) struct Route {
    path: &'static str,
    methods: Methods,
    pub(super) page: fn(&Admin, &Request<'_>) -> Page,
}

/// A request of a route.
pub(super) struct Request<'a> {
    pub(super) head: &'a Head<'a>,
    pub(super) body: &'a [u8],
    /// The path, without what is encoded in the head.
    pub(super) path: &'a str,
    /// The place of the table that the path names; 0 where it names none.
    pub(super) place: u16,
}

/// The methods that a path has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Methods {
    Read,
    Post,
    ReadAndPost,
}

impl Methods {
    /// The value of `Allow`.
    const fn allow(self) -> &'static str {
        match self {
            Self::Read => "GET, HEAD",
            Self::Post => "POST",
            Self::ReadAndPost => "GET, HEAD, POST",
        }
    }
}

impl Route {
    /// The reply to a request whose method the path lacks.
    pub(super) fn refusal(&self, method: Method) -> Option<Page> {
        let has = match method {
            Method::Get | Method::Head => self.methods != Methods::Post,
            Method::Post => self.methods != Methods::Read,
            _ => false,
        };
        (!has).then(|| Page::only(self.methods.allow()))
    }

    /// True for the path that sends lines as they come.
    pub(super) fn is_live(&self) -> bool {
        self.path == LIVE
    }
}

const TABLE: &str = "/api/{table}";
const QUARANTINE: &str = "/api/{table}/quarantine";
const LIVE: &str = "/api/{table}/live";
const FILE: &str = "/page/{file}";

const fn read(path: &'static str, page: fn(&Admin, &Request<'_>) -> Page) -> Route {
    Route { path, methods: Methods::Read, page }
}

fn ready(admin: &Admin, request: &Request<'_>) -> Page {
    health::ready(admin, admin.access.is_trusted(request.head))
}

fn file(_: &Admin, request: &Request<'_>) -> Page {
    page::file(request.path).unwrap_or_else(nothing)
}

static ROUTES: [Route; 18] = [
    read("/", file),
    read(TABLE, |admin, request| match admin.tables.get(usize::from(request.place)) {
        Some(table) => events::page(admin, &table.name, request.head.query),
        None => nothing(),
    }),
    read(LIVE, |_, request| live::page(request.head)),
    Route {
        path: QUARANTINE,
        methods: Methods::ReadAndPost,
        page: |admin, request| quarantine::page(admin, request.place, request.head),
    },
    read("/config", |admin, _| Page::text(admin.config.clone())),
    read(fields::PATH, |admin, _| fields::page(admin)),
    read("/health", ready),
    read("/healthz", ready),
    read(health::LIVE_PATH, |admin, _| health::live(&admin.workers, &admin.spool)),
    read(metrics::PATH, |admin, _| metrics::page(admin)),
    read("/openapi.json", |_, _| Page::json(Status::Ok, OPENAPI.to_owned())),
    read(FILE, file),
    read("/ping", ready),
    Route {
        path: replay::PATH,
        methods: Methods::ReadAndPost,
        page: |admin, request| replay::page(admin, request.head, request.body),
    },
    read("/readyz", ready),
    Route {
        path: requeue::PATH,
        methods: Methods::Post,
        page: |admin, request| requeue::page(admin, request.head.query),
    },
    read("/stats", |admin, request| stats::page(admin, request.head.query)),
    read("/version", |_, _| version()),
];

/// The route of a path, with the place of the table that it names.
pub(super) fn find(tables: &[AdminTable], path: &str) -> Option<(&'static Route, u16)> {
    let route = |template: &str| ROUTES.iter().find(|route| route.path == template);
    if let Some(name) = path.strip_prefix("/api/") {
        let (name, template) = match name.split_once('/') {
            Some((name, "quarantine")) => (name, QUARANTINE),
            Some((name, "live")) => (name, LIVE),
            Some(_) => return None,
            None => (name, TABLE),
        };
        let table = named(tables, name)?;
        let place = (0..).zip(tables).find(|(_, known)| std::ptr::eq(*known, table))?.0;
        return Some((route(template)?, place));
    }
    let is_file = path.starts_with("/page/") && page::file(path).is_some();
    let template = if is_file { FILE } else { path };
    Some((route(template).filter(|_| !path.contains('{'))?, 0))
}

/// The reply at a path that is none.
pub(super) fn nothing() -> Page {
    Page::fault(Status::NotFound, "not_found", "There is nothing at this path.")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;
    use crate::clickhouse::name::TableName;

    /// The methods of each path of an address that the description has.
    fn described(address: &str) -> BTreeMap<String, BTreeSet<String>> {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let of_path = |(path, item): (&String, &Value)| {
            let operations = item.as_object().unwrap().iter().filter(|(_, operation)| {
                operation["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == address))
            });
            let methods: BTreeSet<String> = operations.map(|(method, _)| method.to_uppercase()).collect();
            (path.clone(), methods)
        };
        let all = document["paths"].as_object().unwrap().iter().map(of_path);
        all.filter(|(_, methods)| !methods.is_empty()).collect()
    }

    fn methods(allow: &str) -> BTreeSet<String> {
        allow.split(", ").filter(|method| *method != "HEAD").map(str::to_owned).collect()
    }

    #[test]
    fn every_path_and_method_is_described_and_no_other() {
        let ours: BTreeMap<_, _> =
            ROUTES.iter().map(|route| (route.path.to_owned(), methods(route.methods.allow()))).collect();
        assert_eq!(ours.len(), ROUTES.len(), "no path comes twice");
        assert_eq!(described("admin"), ours);
        let public = crate::api::PATHS.map(|(path, allow)| (path.to_owned(), methods(allow)));
        assert_eq!(described("public"), public.into());
    }

    #[test]
    fn a_path_names_its_table_and_what_of_it() {
        let table = |label: &str, is_default| AdminTable {
            name: TableName::new("d", label),
            label: label.to_owned(),
            is_default,
            path: format!("/api/{label}"),
            spool_bytes_max: 1,
        };
        let tables = [table("a.hits", false), table("b.hits", true)];
        let found = |path: &str| find(&tables, path).map(|(route, place)| (route.path, place));
        assert_eq!(found("/api/b.hits/quarantine"), Some((QUARANTINE, 1)));
        assert_eq!(found("/api/events/quarantine"), Some((QUARANTINE, 1)));
        assert_eq!(found("/api/a.hits"), Some((TABLE, 0)));
        assert_eq!(found("/api/a.hits/live"), Some((LIVE, 0)));
        assert_eq!(found("/page/page.css"), Some((FILE, 0)));
        assert_eq!((found("/"), found("/stats")), (Some(("/", 0)), Some(("/stats", 0))));
        for none in ["/api/a.hits/", "/api/quarantine", "/api//live", "/a.hits", "/api/a.hits/live/x", "/page/x", ""] {
            assert_eq!(found(none), None, "{none}");
        }
        for route in ROUTES.iter().filter(|route| route.path.contains('{')) {
            assert_eq!(found(route.path), None, "{}", route.path);
        }
    }
}
