//! [`Exporter`]: spans to an OpenTelemetry collector, and the trace context of the span that one is in.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, Key};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::Carried;
use crate::{Error, ErrorKind, Result};

/// Sends spans over OTLP, in batches and from a thread of its own; what is left is sent when it is dropped.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// As OpenTelemetry's SDK reads it from the environment (`OTEL_EXPORTER_OTLP_ENDPOINT` and its neighbours); `service` is
    /// the name where the environment has none. Not on a runtime's thread.
    ///
    /// # Errors
    /// `Configuration`: an endpoint that is none.
    pub(crate) fn start(service: &str) -> Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .build()
            .map_err(|error| Error::new(ErrorKind::Configuration, "export spans over OTLP").with_source(error))?;
        let resource = resource(service);
        Ok(Exporter(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// What makes OpenTelemetry's spans of ours: tasks, and what handlers say of themselves from INFO on.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let filter = filter_fn(is_exported).with_max_level_hint(LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("celeriac")).with_filter(filter)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!("the last spans could not be exported: {error}");
        }
    }
}

/// Who we are: what the environment says, and the service's name where it does not say it.
fn resource(service: &str) -> Resource {
    let found = Resource::builder().build();
    let name = found.get(&Key::from_static_str("service.name"));
    match name.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
        true => Resource::builder().with_service_name(service.to_owned()).build(),
        false => found,
    }
}

/// Spans, and what of the log goes wrong in them.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= if metadata.is_span() { Level::INFO } else { Level::WARN }
}

/// Gives a span the parent that a message names.
pub(super) fn adopt(span: &Span, carried: Option<&Carried>) {
    let Some(carried) = carried.filter(|_| !span.is_disabled()) else { return };
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), carried);
    if parent.span().span_context().is_valid() {
        // Without a layer that makes OpenTelemetry's spans there is nothing to give a parent to.
        let _ = span.set_parent(parent);
    }
}

/// What is handed on in the present span, if OpenTelemetry knows it.
pub(super) fn active(carried: Option<&Carried>) -> Option<Carried> {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut place = Place::default();
    TraceContextPropagator::new().inject_context(&context, &mut place);
    Some(Carried::replaced(carried, place.parent?, place.state))
}

/// What a propagator writes.
#[derive(Default)]
struct Place {
    parent: Option<String>,
    state: Option<String>,
}

impl Injector for Place {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "traceparent" => self.parent = Some(value),
            "tracestate" => self.state = Some(value).filter(|state| !state.is_empty()),
            _ => {}
        }
    }
}

impl Extractor for Carried {
    fn get(&self, key: &str) -> Option<&str> {
        Carried::get(self, key)
    }

    fn keys(&self) -> Vec<&str> {
        self.names()
    }
}
