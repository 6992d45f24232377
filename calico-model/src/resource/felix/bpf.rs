//! The words of the parameters of eBPF, which this agent does not serve.

use std::fmt;
use std::str::FromStr;

use crate::net::ParseError;
use crate::resource::duration::GoDuration;
use crate::wire::{wire_enum, wire_struct, wire_text};

wire_enum! {
    in any case
    /// eBPF: how programs are attached.
    pub enum BpfAttachType {
        /// By the classifier of traffic control.
        Tc = "TC",
        /// By the newer form of it.
        Tcx = "TCX",
        /// By the workload's device itself.
        Netkit = "Netkit",
    }
}

wire_enum! {
    in any case
    /// eBPF: which protocols are balanced at connect time.
    pub enum BpfConnectTime {
        /// TCP.
        Tcp = "TCP",
        /// All.
        Enabled = "Enabled",
        /// None.
        Disabled = "Disabled",
    }
}

wire_enum! {
    in any case
    /// eBPF: who cleans up tracked connections.
    pub enum BpfConntrackMode {
        /// Whoever the kernel allows.
        Auto = "Auto",
        /// The agent.
        Userspace = "Userspace",
        /// A program in the kernel.
        BpfProgram = "BPFProgram",
    }
}

wire_enum! {
    in any case
    /// eBPF: what connection tracking logs.
    pub enum BpfConntrackLog {
        /// Nothing.
        Off = "Off",
        /// Every decision.
        Debug = "Debug",
    }
}

wire_enum! {
    in any case
    /// eBPF: how strictly source addresses are checked.
    pub enum BpfRpf {
        /// Not at all.
        Disabled = "Disabled",
        /// The packet must come in where the answer goes out.
        Strict = "Strict",
        /// There must be a way for the answer.
        Loose = "Loose",
    }
}

wire_enum! {
    in any case
    /// eBPF: how packets from outside reach services on other nodes.
    pub enum BpfServiceMode {
        /// Through a tunnel, there and back.
        Tunnel = "Tunnel",
        /// Through a tunnel there, and back by the shortest way.
        Dsr = "DSR",
    }
}

wire_enum! {
    in any case
    /// eBPF: how the compiler is hardened.
    pub enum BpfHardening {
        /// As much as performance allows.
        Auto = "Auto",
        /// As the kernel has it.
        Strict = "Strict",
    }
}

wire_enum! {
    in any case
    /// eBPF: what the programs log.
    pub enum BpfLogLevel {
        /// Nothing.
        Off = "Off",
        /// Every verdict.
        Info = "Info",
        /// Every step.
        Debug = "Debug",
    }
}

wire_enum! {
    in any case
    /// eBPF: what becomes of a table of connections that is full.
    pub enum BpfScaling {
        /// Connections are refused.
        Disabled = "Disabled",
        /// It is made twice as large.
        DoubleIfFull = "DoubleIfFull",
    }
}

wire_enum! {
    in any case
    /// eBPF: the source address of the host's packets through tunnels.
    pub enum BpfOverlaySource {
        /// The host's own.
        HostAddress = "HostAddress",
        /// That of the tunnel's device.
        TunnelAddress = "TunnelAddress",
    }
}

wire_struct! {
    /// eBPF: how long connections are remembered.
    pub struct ConntrackTimeouts {
        /// New ones, whatever they are.
        creation_grace_period: Option<Timeout> = "creationGracePeriod" optional("10s"),
        /// TCP, after the first packet.
        tcp_syn_sent: Option<Timeout> = "tcpSynSent" optional("20s"),
        /// TCP, established.
        tcp_established: Option<Timeout> = "tcpEstablished" optional("1h"),
        /// TCP, closed by both sides.
        tcp_fins_seen: Option<Timeout> = "tcpFinsSeen" optional("Auto"),
        /// TCP, broken off.
        tcp_reset_seen: Option<Timeout> = "tcpResetSeen" optional("40s"),
        /// UDP.
        udp_timeout: Option<Timeout> = "udpTimeout" optional("60s"),
        /// Other protocols.
        generic_timeout: Option<Timeout> = "genericTimeout" optional("10m"),
        /// ICMP.
        icmp_timeout: Option<Timeout> = "icmpTimeout" optional("5s"),
    }
}

/// A time after which something is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timeout {
    /// As the kernel's own connection tracking has it.
    Auto,
    /// This long.
    After(GoDuration),
}

impl FromStr for Timeout {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "Auto" { Ok(Self::Auto) } else { text.parse().map(Self::After) }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("Auto"),
            Self::After(time) => time.fmt(f),
        }
    }
}

wire_text!(Timeout as "Auto" = "^(Auto|([0-9]+([.][0-9]+)?(ms|s|m|h))*)$");
