//! The words that parameters are set to.

use crate::wire::wire_enum;

wire_enum! {
    in any case
    /// What becomes of traffic from a workload to its own node, after the workload's policy allowed it.
    pub enum EndpointToHostAction {
        /// It is dropped.
        Drop = "Drop",
        /// It is accepted.
        Accept = "Accept",
        /// The rules of others decide.
        Return = "Return",
    }
}

wire_enum! {
    in any case
    /// Which routes between nodes the route programmer writes from the datastore; the rest is left to BGP.
    pub enum ProgramClusterRoutes {
        /// Only VXLAN's.
        Disabled = "Disabled",
        /// All.
        Enabled = "Enabled",
        /// VXLAN's and IP-in-IP's.
        IpipOnly = "EnabledIPIPOnly",
        /// VXLAN's and those without encapsulation.
        NoEncapOnly = "EnabledNoEncapOnly",
    }
}

wire_enum! {
    in any case
    /// What is asked of the certificates of those who ask for metrics.
    pub enum ClientAuth {
        /// Nothing.
        None = "NoClientCert",
        /// Any, unchecked.
        RequireAny = "RequireAnyClientCert",
        /// One that we can check.
        RequireAndVerify = "RequireAndVerifyClientCert",
        /// If there is one, one that we can check.
        VerifyIfGiven = "VerifyClientCertIfGiven",
    }
}

wire_enum! {
    in any case
    /// Where our jumps go among the rules of others.
    pub enum ChainInsertMode {
        /// Before them.
        Insert = "Insert",
        /// After them.
        Append = "Append",
    }
}

wire_enum! {
    in any case
    /// For which addresses of its subnet a node answers.
    pub enum L2Reachability {
        /// None but its own.
        Disabled = "Disabled",
        /// Those of pods and of load balancers.
        PodsAndLoadBalancers = "PodsAndLoadBalancers",
    }
}

wire_enum! {
    in any case
    /// Which destinations keep the source address as it is.
    pub enum NatExclusions {
        /// Addresses of pools.
        PoolsOnly = "IPPoolsOnly",
        /// Addresses of pools and of nodes.
        PoolsAndHosts = "IPPoolsAndHostIPs",
    }
}

wire_enum! {
    in any case
    /// Which established flows bypass the rules.
    pub enum FlowOffload {
        /// None.
        Disabled = "Disabled",
        /// All.
        All = "All",
    }
}

wire_enum! {
    in any case
    /// Whether nftables is used.
    pub enum NftablesMode {
        /// As kube-proxy does.
        Auto = "Auto",
        /// Yes.
        Enabled = "Enabled",
        /// No.
        Disabled = "Disabled",
    }
}

wire_enum! {
    in any case
    /// Where it is known from which node an address is on.
    pub enum RouteSource {
        /// From IPAM's blocks.
        CalicoIpam = "CalicoIPAM",
        /// From the workloads themselves.
        WorkloadIps = "WorkloadIPs",
    }
}

wire_enum! {
    in any case
    /// What becomes of packets to service addresses that no service takes.
    pub enum LoopPrevention {
        /// They are dropped.
        Drop = "Drop",
        /// They are refused.
        Reject = "Reject",
        /// They are let be.
        Disabled = "Disabled",
    }
}

wire_enum! {
    in any case
    /// Which workloads may ask to send from foreign addresses.
    pub enum SourceSpoofing {
        /// None.
        Disabled = "Disabled",
        /// Any.
        Any = "Any",
    }
}

wire_enum! {
    in any case
    /// Which kind of iptables is used.
    pub enum IptablesBackend {
        /// The one that others use.
        Auto = "Auto",
        /// The old one.
        Legacy = "Legacy",
        /// The one over nf_tables.
        Nft = "NFT",
    }
}

wire_enum! {
    in any case
    /// What becomes of allowed packets.
    pub enum AllowAction {
        /// They pass.
        Accept = "Accept",
        /// The rules of others decide.
        Return = "Return",
    }
}

wire_enum! {
    in any case
    /// What becomes of denied packets.
    pub enum DenyAction {
        /// They vanish.
        Drop = "Drop",
        /// They are refused.
        Reject = "Reject",
    }
}

wire_enum! {
    in any case
    /// Whether pending policy is evaluated for flows that go on.
    pub enum FlowEvaluation {
        /// It is.
        Continuous = "Continuous",
        /// It is not.
        None = "None",
    }
}

wire_enum! {
    in any case
    /// What is done with an AWS instance's source and destination check.
    pub enum AwsCheck {
        /// It is left alone.
        DoNothing = "DoNothing",
        /// It is switched on.
        Enable = "Enable",
        /// It is switched off.
        Disable = "Disable",
    }
}
