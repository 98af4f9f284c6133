//! Where answers come from.

use informer::Informer;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::IpAddr;
use std::sync::Arc;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "dns/service";
const BY_ADDRESS: &str = "dns/address";

/// Services and slices, looked up by what queries name.
pub(crate) trait Source: Send + Sync + 'static {
    fn synced(&self) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn has_services(&self, namespace: &str) -> bool;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>>;
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// The informers with the indexes a lookup needs.
pub(crate) struct Informers {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Informers {
    pub fn new(services: Informer<Service>, slices: Informer<EndpointSlice>) -> Informers {
        services.add_index(BY_ADDRESS, |service| cluster_ips(service).iter().map(IpAddr::to_string).collect());
        slices.add_index(BY_SERVICE, |slice| service_key(slice).into_iter().collect());
        slices.add_index(BY_ADDRESS, |slice| {
            slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
        });
        Informers { services, slices }
    }
}

impl Source for Informers {
    fn synced(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn has_services(&self, namespace: &str) -> bool {
        !self.services.list_in(namespace).is_empty()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &format!("{namespace}/{service}"))
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, &ip.to_string())
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, &ip.to_string())
    }
}

/// `namespace/name` of a slice's service.
pub(crate) fn service_key(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(format!("{}/{name}", slice.metadata.namespace.as_deref()?))
}

/// Cluster IPs; none for headless and external-name services.
pub(crate) fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else {
        return Vec::new();
    };
    let mut ips: Vec<IpAddr> =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect();
    ips.dedup();
    if ips.len() > 1 && ips.first() == ips.last() {
        ips.pop();
    }
    ips
}
