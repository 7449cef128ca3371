//! What a running `acctd ship` answers over HTTP: `/metrics` and `/healthz`.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};

use super::state::State;
use crate::model::interval::UnixNanos;
use crate::observe::http::{self, Answer, plain};

impl Answer for State {
    async fn answer(&self, request: Request<Incoming>, _is_local: bool) -> Response<Full<Bytes>> {
        match request.uri().path() {
            _ if !http::is_reading(&request) => http::not_allowed(),
            "/metrics" => http::metrics(&self.registry, &request),
            "/healthz" => {
                let problems = self.problems(UnixNanos::now());
                if problems.is_empty() {
                    plain(StatusCode::OK, "ok\n")
                } else {
                    plain(
                        StatusCode::SERVICE_UNAVAILABLE,
                        &format!("{}\n", problems.join("\n")),
                    )
                }
            }
            _ => plain(StatusCode::NOT_FOUND, "acctd ship: /metrics /healthz\n"),
        }
    }
}
