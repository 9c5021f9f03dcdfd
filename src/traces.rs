//! Traces on their way to an OpenTelemetry collector, over the gRPC that is here anyway: the feature `otlp`, on by
//! default. Without it nothing is sent, and `--otlp-endpoint` is refused (`config/serve.rs`).

use tracing_subscriber::{Layer, Registry};

/// What turns spans into traces; `None`: nobody asked for them.
pub(crate) type Spans = Option<Box<dyn Layer<Registry> + Send + Sync>>;

#[cfg(feature = "otlp")]
pub(crate) use otlp::{Traces, start};

#[cfg(not(feature = "otlp"))]
pub(crate) use nothing::{Traces, start};

#[cfg(feature = "otlp")]
mod otlp {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::{LevelFilter, Targets};

    use super::Spans;

    /// Traces waiting to be sent; without [`Traces::flush`] the newest are lost.
    pub(crate) struct Traces(Option<SdkTracerProvider>);

    impl Traces {
        /// Sends what is left. May wait for the collector: do not call it from a thread that serves requests.
        pub(crate) fn flush(self) {
            // If the collector is gone, there is nothing to report.
            let _ = self.0.map(|provider| provider.shutdown());
        }
    }

    /// Sends spans to the collector at `endpoint`.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub(crate) fn start(endpoint: Option<&str>) -> Result<(Spans, Traces), String> {
        let Some(endpoint) = endpoint else { return Ok((None, Traces(None))) };
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| format!("--otlp-endpoint {endpoint}: {error}"))?;
        let resource = Resource::builder()
            .with_service_name("fullrank")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        // Only the service's own spans: those of the exporter's connection would create new ones forever.
        let ours = Targets::new().with_target("fullrank", LevelFilter::DEBUG);
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("fullrank")).with_filter(ours);
        Ok((Some(spans.boxed()), Traces(Some(provider))))
    }
}

#[cfg(not(feature = "otlp"))]
mod nothing {
    use super::Spans;

    /// Nothing to send.
    pub(crate) struct Traces;

    impl Traces {
        /// Does nothing.
        pub(crate) fn flush(self) {}
    }

    /// Starts nothing.
    pub(crate) fn start(_endpoint: Option<&str>) -> Result<(Spans, Traces), String> {
        Ok((None, Traces))
    }
}
