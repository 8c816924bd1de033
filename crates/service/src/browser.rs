//! Whether a browser asks: where a path has a page for people and data for programs.

use http::HeaderMap;
use http::header::ACCEPT;

/// Whether a page is asked for: HTML is named before JSON.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.take_while(|kind| *kind != "application/json").any(|kind| kind == "text/html")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_browser_gets_the_page_and_a_program_does_not() {
        let check = |accept: &'static str, page: bool| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wants_page(&headers), page, "{accept}");
        };
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true);
        check("text/html", true);
        check("*/*", false);
        check("application/json", false);
        check("application/json, text/html", false);
        assert!(!wants_page(&HeaderMap::new()));
    }
}
