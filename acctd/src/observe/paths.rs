//! What the daemon answers over HTTP: `/metrics`, `/healthz`, `/status`, `/top`, a page for browsers (`/`), and for
//! `acctd explain`, on a UNIX socket only, `/explain`.
//!
//! It runs in the listener's thread, with a lower priority than the readers and other programs, and reads only `state`. So no
//! client delays a packet. For `/top` readers copy their open intervals, at most once a second, as they do for a checkpoint.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use hyper::{Request, Response, StatusCode};
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::observe::http::{self, Answer, of_type, plain};
use crate::observe::live::{self, Live};
use crate::observe::metrics;
use crate::observe::state::RuntimeState;
use crate::observe::status::Status;
use crate::sampling::rates::LiveRates;
use crate::sampling::run::{Question, Sampling};

/// Bytes of a question of `acctd explain`: some hundred prefixes.
const MAX_QUESTION: usize = 65_536;

/// Answers of the daemon.
pub(crate) struct Paths {
    state: Arc<RuntimeState>,
    metrics: Registry,
    sampling: Arc<Sampling>,
    rates: Arc<LiveRates>,
}

impl Answer for Paths {
    async fn answer(&self, request: Request<Incoming>, is_local: bool) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/explain" if is_local => self.explain(request).await,
            _ if !http::is_reading(&request) => http::not_allowed(),
            "/top" => self.top(&request).await,
            _ => self.respond(&request),
        }
    }
}

/// What a browser may do with the page: it needs nothing but this acctd.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'";

const PATHS: &str = "acctd: / /metrics /healthz /status /top\n";

impl Paths {
    pub(crate) fn new(
        state: Arc<RuntimeState>,
        sampling: Arc<Sampling>,
        rates: Arc<LiveRates>,
    ) -> Self {
        Self {
            metrics: metrics::registry(Arc::clone(&state)),
            state,
            sampling,
            rates,
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/metrics" => http::metrics(&self.metrics, request),
            "/healthz" => self.health(),
            "/status" => json(&Status::of(&self.state)),
            "/" => page(),
            _ => plain(StatusCode::NOT_FOUND, PATHS),
        }
    }

    async fn top(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match live::parse(request.uri().query().unwrap_or_default()) {
            Ok(query) => json(&Live::of(&self.state, self.rates.answer(&query).await)),
            Err(error) => plain(StatusCode::BAD_REQUEST, &format!("acctd: {error}\n")),
        }
    }

    /// The body is a [`Question`]. The answer takes as long as it says, and a moment more.
    async fn explain(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = Limited::new(request.into_body(), MAX_QUESTION)
            .collect()
            .await;
        let question = body.ok().map(Collected::to_bytes);
        let question = question.and_then(|body| serde_json::from_slice::<Question>(&body).ok());
        let Some(question) = question else {
            return plain(StatusCode::BAD_REQUEST, "acctd: not a question\n");
        };
        let sampling = Arc::clone(&self.sampling);
        // To its end, even if the client goes: then nothing stays switched on.
        let answering = tokio::spawn(async move { sampling.answer(&question).await });
        let answer = answering
            .await
            .unwrap_or_else(|panicked| Err(panicked.into()));
        match answer.and_then(|report| Ok(serde_json::to_string(&report)?)) {
            Ok(text) => of_type("application/json", format!("{text}\n")),
            Err(error) => plain(StatusCode::CONFLICT, &format!("{error:#}\n")),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let snapshot = self.state.snapshot();
        let mut lines = snapshot.problems(&self.state.groups);
        let status = if lines.is_empty() {
            lines.push("ok".to_owned());
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        lines.extend(snapshot.crosscheck_problems());
        plain(status, &format!("{}\n", lines.join("\n")))
    }
}

fn page() -> Response<Full<Bytes>> {
    let mut response = of_type(
        "text/html; charset=utf-8",
        include_str!("page.html").to_owned(),
    );
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => of_type("application/json", format!("{text}\n")),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}
