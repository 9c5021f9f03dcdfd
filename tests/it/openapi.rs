//! The described interface is the served one.

use crate::harness::{Server, gaussian_body};

#[test]
fn every_described_path_is_served_and_typed() {
    let server = Server::start(&[]);
    server.report("?window=0&last=true", gaussian_body(32, 8, 1));
    let document = server.json("/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 14, "{paths:?}");
    for (path, methods) in paths {
        let concrete = path.replace("{run}", "r").replace("{layer}", "l").replace("{window}", "0");
        for method in methods.as_object().unwrap().keys() {
            // Deleting comes last of all, below; finishing is harmless.
            if method == "delete" {
                continue;
            }
            let method = method.to_uppercase().parse().unwrap();
            let response = server.client.request(method, server.url(&concrete)).send().unwrap();
            assert!(![404, 405].contains(&response.status().as_u16()), "{path}: {}", response.status());
        }
    }
    let measures = &document["components"]["schemas"]["Report"]["properties"]["measures"]["properties"];
    assert!(measures["entropy_rank"]["description"].is_string(), "{measures}");
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    assert!(codes.contains(&"window_closed".into()));
    assert_eq!(server.client.delete(server.url("/v1/runs/r")).send().unwrap().status(), 204);
    assert_eq!(server.get("/v1/runs/r").send().unwrap().status(), 404);
}

#[test]
fn every_route_is_described() {
    let routes = include_str!("../../src/server/routes.rs");
    let described = fullrank::web::openapi_document();
    for line in routes.lines().filter(|line| line.contains(".route(\"")) {
        let path = line.split('"').nth(1).unwrap();
        assert!(described["paths"][path].is_object(), "{path} is not described");
    }
}
