//! Settings of the controllers that keep Kubernetes and the datastore in step.

use super::ipam::Switch;
use crate::wire::{wire_enum, wire_struct};

wire_struct! {
    /// The `KubeControllersConfiguration`, of which there is one, named `default`.
    pub struct KubeControllersConfiguration {
        /// The log level.
        log_severity_screen: String = "logSeverityScreen" default("Info".to_owned()),
        /// Whether health is reported.
        health_checks: Switch = "healthChecks" default(Switch::Enabled),
        /// How often etcd's history is compacted.
        etcd_v3_compaction_period: String = "etcdV3CompactionPeriod" default("10m".to_owned()),
        /// The port of the metrics; 0 is none.
        prometheus_metrics_port: Option<u16> = "prometheusMetricsPort" optional,
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
        reconciler_period: Option<String> = "reconcilerPeriod" optional,
    }
}

wire_struct! {
    /// Settings of the node controller.
    pub struct NodeController {
        /// How often everything is compared.
        reconciler_period: Option<String> = "reconcilerPeriod" optional,
        /// Whether nodes' labels follow Kubernetes'.
        sync_labels: Option<Switch> = "syncLabels" optional,
        /// Host endpoints that are made for nodes.
        host_endpoint: Option<AutoHostEndpoint> = "hostEndpoint" optional,
        /// How long an address must look leaked before it is released.
        leak_grace_period: Option<String> = "leakGracePeriod" optional,
    }
}

wire_struct! {
    /// Settings of host endpoints that are made for nodes.
    pub struct AutoHostEndpoint {
        /// Whether any is made.
        auto_create: Option<Switch> = "autoCreate" optional,
        /// Whether the one for all interfaces is made.
        create_default_host_endpoint: Option<Switch> = "createDefaultHostEndpoint" optional,
        /// Further ones.
        templates: Vec<HostEndpointTemplate> = "templates" empty,
    }
}

wire_struct! {
    /// A host endpoint to make for the nodes that are selected.
    pub struct HostEndpointTemplate {
        /// What the name ends with.
        generate_name: String = "generateName" required,
        /// Which networks' addresses it expects.
        interface_cidrs: Vec<crate::net::Cidr> = "interfaceCIDRs" empty,
        /// The interfaces, as a regular expression.
        interface_pattern: Option<String> = "interfacePattern" optional,
        /// Its labels.
        labels: crate::label::Labels = "labels" empty,
        /// Which nodes get one.
        node_selector: crate::selector::Selector = "nodeSelector" empty,
    }
    also = OF_TEMPLATE;
}

/// What a template may say and nothing here acts on.
const OF_TEMPLATE: crate::wire::Others = &[("annotations", crate::wire::Shape::Object)];

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
