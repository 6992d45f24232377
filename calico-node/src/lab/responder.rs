//! What answers on a workload's ports.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::thread;

use super::port::Port;

/// Answers on each port with `name`, for ever. Says `ready` on standard output once it listens everywhere.
///
/// # Errors
/// When a port cannot be listened on.
pub fn respond(name: &str, ports: &[Port]) -> io::Result<()> {
    let mut listeners = Vec::new();
    for port in ports {
        listeners.push(match port {
            Port::Tcp(number) => Listener::Tcp(anywhere(*number, TcpListener::bind)?),
            Port::Udp(number) => Listener::Udp(anywhere(*number, UdpSocket::bind)?),
        });
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || match listener {
                Listener::Tcp(listener) => serve(listener, name),
                Listener::Udp(socket) => echo(socket, name),
            });
        }
    });
    // Without a port there is nothing to do but to be there until told to end.
    loop {
        thread::park();
    }
}

enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Takes every address of both families; a kernel without IPv6 has only the one.
fn anywhere<T>(port: u16, bind: impl Fn((std::net::IpAddr, u16)) -> io::Result<T>) -> io::Result<T> {
    bind((Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|_| bind((Ipv4Addr::UNSPECIFIED.into(), port)))
}

fn serve(listener: &TcpListener, name: &str) {
    for stream in listener.incoming() {
        // A caller that has gone again has its answer: it was let through.
        drop(stream.and_then(|mut stream| writeln!(stream, "{name}")));
    }
}

fn echo(socket: &UdpSocket, name: &str) {
    let mut datagram = [0; 16];
    loop {
        // An answer that cannot be sent, to a port that is closed by now, is nobody's loss.
        drop(socket.recv_from(&mut datagram).and_then(|(_, from)| socket.send_to(name.as_bytes(), from)));
    }
}
