//! Which member of a group a new client is sent to: a classic BPF program, attached without privileges.

use std::io;
use std::os::fd::AsFd;

use libc::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_W, SKF_AD_CPU,
    SKF_AD_OFF, SKF_AD_RANDOM,
};
use nix::sys::socket::{setsockopt, sockopt};

use crate::linux::sys::options;

/// How the kernel chooses the member of a group that is to have a new client.
///
/// Anything but [`ByHash`](Self::ByHash), and a member that leaves without migration, takes a classic BPF program
/// (`SO_ATTACH_REUSEPORT_CBPF`), which Linux has for TCP from 4.6 on.
///
/// # References
///
/// [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Steering {
    /// By a hash of the client's and the server's address and port: even shares.
    #[default]
    ByHash,
    /// By the CPU on which the client's packet is processed: the member with the number of that CPU, modulo how many
    /// members there are. With a thread for each member, bound to its CPU, a connection stays on one CPU. Without that
    /// binding, or if one CPU handles all packets, the shares are as uneven as the network's queues.
    ByCpu,
}

/// Sends newcomers to the members in order, by the choice of `steer`; never to the one at position `without`.
pub(super) fn attach(
    socket: &impl AsFd,
    steer: Steering,
    members: usize,
    without: Option<usize>,
) -> io::Result<()> {
    let mut program = program(steer, members, without);
    let length = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // The kernel copies the program during the call.
    setsockopt(&socket.as_fd(), sockopt::AttachReusePortCbpf, &program)?;
    Ok(())
}

/// Back to the kernel's own choice.
pub(super) fn detach(socket: &impl AsFd) {
    /// `asm-generic/socket.h`
    const SO_DETACH_REUSEPORT_BPF: i32 = 68;
    // Fails where none is attached, and before Linux 5.3.
    let _ = options::set_int(socket.as_fd(), libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0);
}

#[allow(clippy::cast_possible_truncation, reason = "the codes of classic BPF have 16 bits")]
#[allow(clippy::cast_sign_loss, reason = "SKF_AD_OFF is a negative offset in an unsigned field")]
fn program(steer: Steering, members: usize, without: Option<usize>) -> Vec<libc::sock_filter> {
    let say = |code: u32, jf, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let source = match steer {
        Steering::ByCpu => SKF_AD_CPU,
        // Its own hash the kernel does not show to a program. Every choice is for a new client, so chance will do.
        Steering::ByHash => SKF_AD_RANDOM,
    };
    let choices = members - usize::from(without.is_some());
    let mut program = vec![
        say(BPF_LD | BPF_W | BPF_ABS, 0, (SKF_AD_OFF + source) as u32),
        say(BPF_ALU | BPF_MOD | BPF_K, 0, number(choices.max(1))),
    ];
    if let Some(position) = without {
        // From that position on, the next one.
        program.push(say(BPF_JMP | BPF_JGE | BPF_K, 1, number(position)));
        program.push(say(BPF_ALU | BPF_ADD | BPF_K, 0, 1));
    }
    program.push(say(BPF_RET | BPF_A, 0, 0));
    program
}
