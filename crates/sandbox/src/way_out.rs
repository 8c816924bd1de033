//! The one way out of a sandbox without a network: a port on its loopback behind which the runner answers.
//!
//! The stage opens the port inside, hands the socket to the runner by a Unix socket that only the stage uses, and is gone. The runner accepts connections on it
//! as on its own: a socket belongs to the network in which it was made, whoever holds it. So no process has to stay inside to pass bytes on, and what can be
//! reached is decided outside.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The port inside.
pub const PORT: u16 = 3128;
/// Where the runner waits for the socket, as seen inside.
pub(crate) const INSIDE: &str = "/.fte/way-out";

/// Opens the port and hands it over. For the stage.
pub(crate) fn hand_over(to: &Path) -> io::Result<()> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let runner = UnixStream::connect(to)?;
    let sockets = [port.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("a socket cannot be handed over"));
    }
    sendmsg(&runner, &[IoSlice::new(b"p")], &mut message, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the port. Blocks until it comes.
pub fn take(from: &UnixStream) -> io::Result<TcpListener> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = message.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket: Option<OwnedFd> = sockets.next().and_then(|mut sockets| sockets.next());
    socket.map(TcpListener::from).ok_or_else(|| io::Error::other("the sandbox handed over no socket"))
}
