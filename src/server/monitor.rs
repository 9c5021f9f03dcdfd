//! The gRPC service: pushes go to `ingest`, everything else to `web`; health and reflection alongside.

use std::pin::Pin;

use axum::Router;
use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::ingest::{self, Ingest, MAX_MESSAGE_BYTES};
use crate::web::{Site, rpc};
use crate::wire::proto;
use crate::wire::proto::monitor_server::{Monitor, MonitorServer};

pub(super) fn router(site: &Site, ingest: &Ingest) -> Router {
    let service = MonitorService { site: site.clone(), ingest: ingest.clone() };
    let monitor =
        MonitorServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(usize::MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    let serving = tonic_health::ServingStatus::Serving;
    // The reporter's state is in memory: setting it completes immediately.
    tokio::spawn(async move { reporter.set_service_status("fullrank.v1.Monitor", serving).await });
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = tonic::service::Routes::new(monitor).add_service(health);
    // The descriptors are compiled in; a test checks that they can be read.
    if let (Ok(v1), Ok(v1alpha)) = (describe().build_v1(), describe().build_v1alpha()) {
        routes = routes.add_service(v1).add_service(v1alpha);
    }
    routes.into_axum_router().reset_fallback()
}

struct MonitorService {
    site: Site,
    ingest: Ingest,
}

type RpcResult<T> = Result<Response<T>, Status>;
type RpcStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Monitor for MonitorService {
    type ListReportsStream = RpcStream<proto::Report>;
    type WatchVerdictsStream = RpcStream<proto::Verdict>;

    async fn push(&self, request: Request<Streaming<proto::PushRequest>>) -> RpcResult<proto::PushResponse> {
        Ok(Response::new(ingest::grpc::push(&self.ingest, request.into_inner()).await?))
    }

    async fn close_window(&self, request: Request<proto::CloseWindowRequest>) -> RpcResult<proto::CloseWindowResponse> {
        Ok(Response::new(rpc::close_window(&self.site, request.into_inner()).await?))
    }

    async fn finish_run(&self, request: Request<proto::FinishRunRequest>) -> RpcResult<proto::FinishRunResponse> {
        Ok(Response::new(rpc::finish_run(&self.site, request.into_inner()).await?))
    }

    async fn acknowledge(&self, request: Request<proto::AcknowledgeRequest>) -> RpcResult<proto::Verdict> {
        Ok(Response::new(rpc::acknowledge(&self.site, request.into_inner()).await?))
    }

    async fn list_runs(&self, _: Request<proto::ListRunsRequest>) -> RpcResult<proto::ListRunsResponse> {
        Ok(Response::new(rpc::list_runs(&self.site)))
    }

    async fn list_reports(&self, request: Request<proto::ListReportsRequest>) -> RpcResult<Self::ListReportsStream> {
        Ok(Response::new(Box::pin(rpc::list_reports(&self.site, request.into_inner())?)))
    }

    async fn get_spectrum(&self, request: Request<proto::GetSpectrumRequest>) -> RpcResult<proto::Spectrum> {
        Ok(Response::new(rpc::get_spectrum(&self.site, request.into_inner()).await?))
    }

    async fn get_verdict(&self, request: Request<proto::GetVerdictRequest>) -> RpcResult<proto::Verdict> {
        Ok(Response::new(rpc::get_verdict(&self.site, &request.into_inner().run)?))
    }

    async fn watch_verdicts(
        &self,
        request: Request<proto::WatchVerdictsRequest>,
    ) -> RpcResult<Self::WatchVerdictsStream> {
        Ok(Response::new(Box::pin(rpc::watch_verdicts(&self.site, request.into_inner().run)?)))
    }
}
