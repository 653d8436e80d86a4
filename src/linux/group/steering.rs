//! The choice of a member for a new connection: a classic BPF program, attached without privileges.

use std::io;
use std::os::fd::AsFd;

use libc::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_W, SKF_AD_CPU,
    SKF_AD_OFF, SKF_AD_RANDOM,
};
use nix::sys::socket::{setsockopt, sockopt};

use crate::linux::sys::options;

/// The kernel's choice of a group member for a new connection.
///
/// [`ByCpu`](Self::ByCpu), and a member that leaves without migration, require a classic BPF program
/// (`SO_ATTACH_REUSEPORT_CBPF`, for TCP since Linux 4.6). See
/// [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Steering {
    /// By a hash of the client's and the server's address and port: even shares.
    #[default]
    ByHash,
    /// By the CPU that processes the client's packet: the index of the member is the number of that CPU modulo the
    /// number of members, until one leaves. If each member has a thread pinned to its CPU, a connection stays on one
    /// CPU. Without pinning, or if one CPU processes all packets, the shares are as uneven as the receive queues of the
    /// network device.
    ByCpu,
}

/// Attaches a program that chooses among the `members` sockets of the group, except for those at the ascending
/// positions `without`.
pub(super) fn attach(
    socket: &impl AsFd,
    steering: Steering,
    members: usize,
    without: &[usize],
) -> io::Result<()> {
    let mut program = program(steering, members, without);
    let length = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // The kernel copies the program during the call.
    setsockopt(&socket.as_fd(), sockopt::AttachReusePortCbpf, &program)?;
    Ok(())
}

/// Detaches the program: the kernel chooses by its own hash again.
pub(super) fn detach(socket: &impl AsFd) {
    /// `asm-generic/socket.h`
    const SO_DETACH_REUSEPORT_BPF: i32 = 68;
    // Fails if no program is attached.
    let _ = options::set_int(socket.as_fd(), libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0);
}

#[allow(clippy::cast_possible_truncation, reason = "the codes of classic BPF have 16 bits")]
#[allow(clippy::cast_sign_loss, reason = "SKF_AD_OFF is a negative offset in an unsigned field")]
fn program(steering: Steering, members: usize, without: &[usize]) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jf, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let source = match steering {
        Steering::ByCpu => SKF_AD_CPU,
        // The kernel does not pass its own hash to a program. A random number gives even shares too.
        Steering::ByHash => SKF_AD_RANDOM,
    };
    let choices = members - without.len();
    let mut program = vec![
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, (SKF_AD_OFF + source) as u32),
        instruction(BPF_ALU | BPF_MOD | BPF_K, 0, number(choices.max(1))),
    ];
    for position in without {
        // Skips `position`: adds 1 to a choice that is not below it.
        program.push(instruction(BPF_JMP | BPF_JGE | BPF_K, 1, number(*position)));
        program.push(instruction(BPF_ALU | BPF_ADD | BPF_K, 0, 1));
    }
    program.push(instruction(BPF_RET | BPF_A, 0, 0));
    program
}
