//! Settings of the controllers that keep Kubernetes and the datastore in step.

use std::collections::BTreeMap;

use super::duration::GoDuration;
use super::ipam::Switch;
use super::severity::Severity;
use crate::label::Labels;
use crate::net::Cidr;
use crate::selector::Selector;
use crate::wire::{Limit, wire_enum, wire_struct};

wire_struct! {
    /// The `KubeControllersConfiguration`, of which there is one, named `default`.
    pub struct KubeControllersConfiguration {
        /// The log level.
        log_severity_screen: Severity = "logSeverityScreen" default(Severity::Info),
        /// Whether health is reported.
        health_checks: Switch = "healthChecks" default(Switch::Enabled),
        /// How often etcd's history is compacted; `None` is every ten minutes, and 0 is never.
        etcd_v3_compaction_period: Option<GoDuration> = "etcdV3CompactionPeriod" optional("10m"),
        /// The port of the metrics; `None` is 9094, and 0 is none.
        prometheus_metrics_port: Option<u16> = "prometheusMetricsPort" optional(9094),
        /// The port of the profiler; 0 is none.
        debug_profile_port: Option<u16> = "debugProfilePort" optional,
        /// The controllers; one that is absent is off.
        controllers: Option<Controllers> = "controllers" optional,
    }
}

wire_struct! {
    /// Settings of each controller.
    pub struct Controllers {
        /// Nodes: removal, labels, leaks of addresses.
        node: Option<NodeController> = "node" optional,
        /// Kubernetes' network policies.
        policy: Option<Controller> = "policy" optional,
        /// Workload endpoints' labels.
        workload_endpoint: Option<Controller> = "workloadEndpoint" optional,
        /// Service accounts' profiles.
        service_account: Option<Controller> = "serviceAccount" optional,
        /// Namespaces' profiles.
        namespace: Option<Controller> = "namespace" optional,
        /// Addresses of services of type LoadBalancer.
        load_balancer: Option<LoadBalancerController> = "loadBalancer" optional,
        /// Renaming of stored policies.
        migration: Option<MigrationController> = "migration" optional,
    }
}

wire_struct! {
    /// Settings that most controllers have.
    pub struct Controller {
        /// How often everything is compared.
        reconciler_period: Option<GoDuration> = "reconcilerPeriod" optional("5m"),
    }
}

wire_struct! {
    /// Settings of the node controller.
    pub struct NodeController {
        /// How often everything is compared.
        reconciler_period: Option<GoDuration> = "reconcilerPeriod" optional("5m"),
        /// Whether nodes' labels follow Kubernetes'.
        sync_labels: Option<Switch> = "syncLabels" optional("Enabled"),
        /// Host endpoints that are made for nodes.
        host_endpoint: Option<AutoHostEndpoint> = "hostEndpoint" optional,
        /// How long an address must look leaked before it is released; 0 never releases one.
        leak_grace_period: Option<GoDuration> = "leakGracePeriod" optional("15m"),
    }
}

wire_struct! {
    /// Settings of host endpoints that are made for nodes.
    pub struct AutoHostEndpoint {
        /// Whether any is made.
        auto_create: Option<Switch> = "autoCreate" optional("Disabled"),
        /// Whether the one for all interfaces is made.
        create_default_host_endpoint: Option<Switch> = "createDefaultHostEndpoint" optional("Enabled"),
        /// Further ones.
        templates: Vec<HostEndpointTemplate> = "templates" empty,
    }
}

wire_struct! {
    /// A host endpoint to make for the nodes that are selected.
    pub struct HostEndpointTemplate {
        /// What the name ends with.
        generate_name: String = "generateName" required [Limit::Length(253)],
        /// Which networks' addresses it expects.
        interface_cidrs: Vec<Cidr> = "interfaceCIDRs" empty,
        /// The interfaces, as a regular expression.
        interface_pattern: Option<String> = "interfacePattern" optional,
        /// Its labels.
        labels: Labels = "labels" empty,
        /// Its notes.
        annotations: BTreeMap<String, String> = "annotations" empty,
        /// Which nodes get one.
        node_selector: Selector = "nodeSelector" empty,
    }
}

wire_enum! {
    /// Which services get an address.
    pub enum AssignIps {
        /// All of type LoadBalancer.
        AllServices = "AllServices",
        /// Those that ask for one.
        RequestedServicesOnly = "RequestedServicesOnly",
    }
}

wire_struct! {
    /// Settings of the load-balancer controller.
    pub struct LoadBalancerController {
        /// Which services get an address.
        assign_ips: AssignIps = "assignIPs" default(AssignIps::AllServices),
    }
}

wire_struct! {
    /// Settings of the migration controller.
    pub struct MigrationController {
        /// Whether stored policies are renamed.
        policy_name_migrator: Switch = "policyNameMigrator" default(Switch::Enabled),
    }
}
