//! `/metrics`, in the text format of Prometheus.

use std::time::Duration;

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};

use crate::db::{Db, Scope};
use crate::listener::Hub;
use crate::sql::Sql;

/// What is counted.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    gauges: GaugeVec,
}

/// Gauges that only the database knows: a name and a number a row.
const GAUGES: &str = "select 'queue_pending', pending::float8 from shell.queue
  union all select 'queue_oldest_seconds', coalesce(extract(epoch from oldest_age), 0)::float8 from shell.queue
  union all select 'workers_' || state, count(*)::float8 from shell.worker_status where state <> 'stopped' group by state
  union all select 'commands_running', coalesce(sum(running), 0)::float8 from shell.worker_status";

impl Metrics {
    /// Nothing counted yet.
    ///
    /// # Panics
    /// Never: the names are fixed, and each is used once.
    pub fn new() -> Metrics {
        let durations = HistogramOpts::new(
            "pg_shell_web_request_seconds",
            "How long requests took, streams apart",
        )
        .buckets(vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
        ]);
        let metrics = Metrics {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("pg_shell_web_requests_total", "Requests answered"),
                &["route", "method", "status"],
            )
            .expect("a fixed name"),
            durations: HistogramVec::new(durations, &["route"]).expect("a fixed name"),
            gauges: GaugeVec::new(Opts::new("pg_shell_web", "What is so now"), &["what"])
                .expect("a fixed name"),
        };
        let all: [Box<dyn prometheus::core::Collector>; 3] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.durations.clone()),
            Box::new(metrics.gauges.clone()),
        ];
        for one in all {
            metrics.registry.register(one).expect("a name of its own");
        }
        metrics
    }

    /// Counts a request. The route is a pattern: addresses are too many to count by.
    pub fn count(&self, route: &str, method: &str, status: u16, took: Duration) {
        self.requests
            .with_label_values(&[route, method, &status.to_string()])
            .inc();
        self.durations
            .with_label_values(&[route])
            .observe(took.as_secs_f64());
    }

    /// The page.
    pub async fn page(&self, db: &Db, hub: &Hub) -> Vec<u8> {
        self.gauges.reset();
        let set = |what: &str, value: f64| self.gauges.with_label_values(&[what]).set(value);
        set("streams", hub.streams() as f64);
        for (pool, status) in ["requests", "streams"].iter().zip(db.status()) {
            set(&format!("pool_{pool}_open"), status.size as f64);
            set(&format!("pool_{pool}_idle"), status.available as f64);
            set(&format!("pool_{pool}_waiting"), status.waiting as f64);
        }
        let scope = Scope {
            role: "shell_auditor".into(),
            ..Scope::default()
        };
        let mut sql = Sql::default();
        sql.push(GAUGES);
        match db.look(&scope, &sql).await {
            Ok(rows) => {
                set("database", 1.0);
                for row in rows {
                    if let (Some(what), Some(value)) = (row.text(0), row.number(1)) {
                        set(what, value);
                    }
                }
            }
            // The server's own figures are worth having without it.
            Err(e) => {
                set("database", 0.0);
                tracing::debug!("no gauges of the database: {e}");
            }
        }
        let mut page = Vec::new();
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::warn!("cannot write the metrics: {e}");
        }
        page
    }
}
