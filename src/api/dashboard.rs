//! The dashboard: one page with its script and style, built into the program
//! and served at [`PATH`]. The files are the same for everybody and need no
//! token; what the page shows it asks the MCP endpoint for, with the token of
//! whoever looks.
//!
//! Its source is in `dashboard/`; `make dashboard` writes the files that are
//! here. The policy that goes with each of them lets the page load nothing from
//! elsewhere, run no script that is written into it, and stand in no frame.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Where the page is, beside the MCP endpoint.
pub const PATH: &str = "/dashboard/";

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

const ASSETS: [Asset; 5] = [
    Asset { name: "", kind: "text/html; charset=utf-8", content: include_bytes!("../../dashboard/dist/index.html") },
    Asset {
        name: "app.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../../dashboard/dist/app.js"),
    },
    Asset { name: "app.css", kind: "text/css; charset=utf-8", content: include_bytes!("../../dashboard/dist/app.css") },
    Asset { name: "icon.svg", kind: "image/svg+xml", content: include_bytes!("../../dashboard/dist/icon.svg") },
    Asset {
        name: "licences.txt",
        kind: "text/plain; charset=utf-8",
        content: include_bytes!("../../dashboard/dist/licences.txt"),
    },
];

/// What browsers are told with each file.
const HEADERS: [(header::HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    // Kept by the browser, and asked after each time: the next version of the node has others.
    (header::CACHE_CONTROL, "no-cache"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The files of the page, and the ways to it from `/` and `/dashboard`.
pub(super) fn routes() -> Router {
    let router = Router::new().route("/", get(onward)).route("/dashboard", get(onward));
    ASSETS.iter().fold(router, |router, asset| {
        let tag = format!("\"{}\"", &blake3::hash(asset.content).to_hex()[..32]);
        let serve = move |headers: HeaderMap| async move { served(asset, &tag, &headers) };
        router.route(&format!("{PATH}{}", asset.name), get(serve))
    })
}

/// Relative, so that it is right behind a proxy that serves the node below a path.
async fn onward() -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "dashboard/")]).into_response()
}

fn served(asset: &Asset, tag: &str, asked: &HeaderMap) -> Response {
    let known = asked.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let fresh = known.is_some_and(|tags| tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
    let mut response = match fresh {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::new(Body::from(asset.content)),
    };
    let headers = response.headers_mut();
    headers.extend(HEADERS.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::body::to_bytes;
    use axum::extract::Request;
    use tower::ServiceExt as _;

    async fn asked(path: &str, tags: Option<&str>) -> Response {
        let request = Request::builder().uri(path);
        let request = tags.into_iter().fold(request, |r, tags| r.header(header::IF_NONE_MATCH, tags));
        routes().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn every_file_goes_out_with_the_policy_and_is_sent_once() {
        for asset in &ASSETS {
            let path = format!("{PATH}{}", asset.name);
            let response = asked(&path, None).await;
            assert_eq!(response.status(), 200, "{path}");
            for (name, value) in &HEADERS {
                assert_eq!(response.headers()[name], *value, "{path}");
            }
            assert_eq!(response.headers()[header::CONTENT_TYPE], asset.kind);
            let tag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
            assert_eq!(to_bytes(response.into_body(), usize::MAX).await.unwrap(), asset.content);
            for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
                let again = asked(&path, Some(&known)).await;
                assert_eq!(again.status(), 304, "{known}");
                assert!(to_bytes(again.into_body(), usize::MAX).await.unwrap().is_empty());
            }
            assert_eq!(asked(&path, Some("\"other\"")).await.status(), 200);
        }
        for missing in ["/dashboard/other.js", "/dashboard/../token", "/dashboard/app.js/", "/dashboard/index.html"] {
            assert_eq!(asked(missing, None).await.status(), 404, "{missing}");
        }
    }

    #[tokio::test]
    async fn the_shorter_addresses_lead_to_the_page() {
        for path in ["/", "/dashboard"] {
            let response = asked(path, None).await;
            assert_eq!(
                (response.status().as_u16(), &response.headers()[header::LOCATION]),
                (307, &"dashboard/".parse().unwrap())
            );
        }
    }

    #[test]
    fn the_policy_allows_nothing_from_elsewhere_and_nothing_inline() {
        let (_, policy) = &HEADERS[0];
        for bad in ["unsafe", "http:", "https:", "data:", "blob:", "*"] {
            assert!(!policy.contains(bad), "{bad} in {policy}");
        }
        let page = str::from_utf8(ASSETS[0].content).unwrap();
        for inline in ["<style", "style=", "onload", "onclick", "javascript:", "http://", "https://"] {
            assert!(!page.contains(inline), "{inline} in the page");
        }
        for script in page.split("<script").skip(1) {
            assert!(
                script.split("</script>").next().unwrap().ends_with('>'),
                "a script with text in the page: {script}"
            );
        }
    }
}
