//! What answers on a workload's ports.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::thread;

/// Answers on each port with `name`, for ever. Says `ready` on standard output once it listens everywhere.
///
/// # Errors
/// When a port cannot be listened on.
pub fn respond(name: &str, ports: &[u16]) -> io::Result<()> {
    let listeners = ports.iter().map(|port| listen(*port)).collect::<io::Result<Vec<_>>>()?;
    let mut stdout = io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || serve(listener, name));
        }
    });
    // Without a port there is nothing to do but to be there until told to end.
    loop {
        thread::park();
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    // A kernel without IPv6 has no `::`; with it, `::` takes IPv4 too.
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

fn serve(listener: &TcpListener, name: &str) {
    for stream in listener.incoming() {
        // A caller that has gone again has its answer: it was let through.
        drop(stream.and_then(|mut stream| writeln!(stream, "{name}")));
    }
}
