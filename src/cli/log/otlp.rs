//! Spans beside the log: the same subscriber hands them to an OpenTelemetry collector.

use std::env;

use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};

use super::LogLayer;
use super::layer::Wanted;
use crate::Result;
use crate::trace::Exporter;

/// The exporter that the environment asks for: it names a collector, and forbids nothing.
pub(super) fn exporter(service: &str) -> Result<Option<Exporter>> {
    let text = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    let endpoint = text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| text("OTEL_EXPORTER_OTLP_ENDPOINT")).is_some();
    let exporters = text("OTEL_TRACES_EXPORTER");
    let wanted = match exporters.as_deref() {
        None => endpoint,
        Some(exporters) => exporters.split(',').any(|exporter| exporter.trim() == "otlp"),
    };
    let disabled = text("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if wanted && !disabled { Exporter::start(service).map(Some) } else { Ok(None) }
}

/// Makes log and exporter the process's; `false` where there is another subscriber.
pub(super) fn subscribe(layer: LogLayer, exporter: &Exporter) -> bool {
    // Each layer has a filter of its own: what the log does not want may be a span to export.
    let wanted = layer.wanted();
    let subscriber = tracing_subscriber::registry().with(exporter.layer()).with(layer.with_filter(wanted));
    tracing::subscriber::set_global_default(subscriber).is_ok()
}

impl<S: Subscriber> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.admits(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.admits(metadata) { Interest::always() } else { Interest::never() }
    }
}
