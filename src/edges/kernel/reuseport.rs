//! SO_REUSEPORT groups: which socket of the group gets a new connection or datagram.
//!
//! A classic BPF program answers with an index, in the order in which the sockets joined the group (socket(7),
//! SO_ATTACH_REUSEPORT_CBPF; kernel: `run_bpf_filter` in net/core/sock_reuseport.c). No privilege is needed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::sockopt;

/// Who gets what is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The indices that get it, each with its weight: of many clients, as the weights are to each other.
    pub serving: Vec<(u32, u64)>,
    /// Which of them gets it.
    pub draw: Draw,
    /// The clients that are sent elsewhere, and where: readiness probes.
    pub probes: Vec<(SocketAddr, u32)>,
}

/// How one of several is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// By chance, for each connection anew.
    Chance,
    /// By the address and port it comes from: all datagrams of a client go to one as long as the weights stay.
    Sender,
}

/// Puts the steering in force for the whole group of this socket, at once.
pub fn steer(member: BorrowedFd<'_>, steering: &Steering) -> io::Result<()> {
    attach(member, &steering.program())
}

fn attach(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    // The kernel copies the program and never writes to it (`bpf_prog_create_from_user`).
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    sockopt::set_value(fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

// Opcodes of classic BPF, `<linux/bpf_common.h>` and `<linux/filter.h>`.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_BEHIND_X: u16 = 0x48;
const LOAD_X_HEADER_LENGTH: u16 = 0xb1;
const SHIFT_RIGHT: u16 = 0x74;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP: u16 = 0x05;
const LOAD_X: u16 = 0x61;
const STORE: u16 = 0x02;
const MULTIPLY: u16 = 0x24;
const XOR_X: u16 = 0xac;
const RETURN: u16 = 0x06;
/// Offsets from here on count from the IP header (SKF_NET_OFF).
const IP: u32 = (-0x10_0000_i32).cast_unsigned();
/// A number by chance, anew each time (SKF_AD_OFF + SKF_AD_RANDOM).
const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();

impl Steering {
    /// The tests for one probe after the other, then whoever serves.
    fn program(&self) -> Vec<libc::sock_filter> {
        let mut program: Vec<_> =
            self.probes.iter().flat_map(|(client, elsewhere)| probe(*client, *elsewhere)).collect();
        program.extend(self.serve());
        program
    }

    /// One comparison after the other, each with its answer right behind it: no jump is longer than one statement, however
    /// many there are (an offset of a conditional jump has 8 bits).
    fn serve(&self) -> Vec<libc::sock_filter> {
        let Some(((last, _), others)) = self.serving.split_last() else { return vec![statement(RETURN, 0)] };
        if others.is_empty() {
            return vec![statement(RETURN, *last)];
        }
        let whole: u128 = self.serving.iter().map(|(_, weight)| u128::from(*weight)).sum::<u128>().max(1);
        let mut statements = match self.draw {
            Draw::Chance => vec![statement(LOAD_WORD, RANDOM)],
            Draw::Sender => sender(),
        };
        let mut below = 0;
        for (index, weight) in others {
            below += u128::from(*weight);
            let limit = u32::try_from((below << 32) / whole).unwrap_or(u32::MAX);
            statements.extend([jump(JUMP_IF_AT_LEAST, limit, 1, 0), statement(RETURN, *index)]);
        }
        statements.push(statement(RETURN, *last));
        statements
    }
}

/// Whether this is the client, and where it is sent then; else what comes next is executed.
fn probe(client: SocketAddr, elsewhere: u32) -> Vec<libc::sock_filter> {
    let port = u32::from(client.port());
    let mut tests = vec![statement(LOAD_BYTE, IP), statement(SHIFT_RIGHT, 4)];
    match client.ip().to_canonical() {
        IpAddr::V4(ip) => tests.extend([
            is(4),
            statement(LOAD_WORD, IP + 12),
            is(ip.to_bits()),
            statement(LOAD_X_HEADER_LENGTH, IP),
            statement(LOAD_HALF_BEHIND_X, IP),
            is(port),
        ]),
        IpAddr::V6(ip) => {
            tests.push(is(6));
            for (offset, word) in (8..).step_by(4).zip(ip.octets().chunks_exact(4)) {
                tests.push(statement(LOAD_WORD, IP + offset));
                tests.push(is(word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))));
            }
            tests.extend([statement(LOAD_HALF, IP + 40), is(port)]);
        }
    }
    tests.push(statement(RETURN, elsewhere));
    let end = tests.len();
    for (position, test) in tests.iter_mut().enumerate().filter(|(_, test)| test.code == JUMP_IF_EQUAL) {
        test.jf = u8::try_from(end - position - 1).unwrap_or(u8::MAX);
    }
    tests
}

/// A number made of the address and port of the sender, in which those of neighbours are far from each other
/// (multiplicative hashing; a comparison with a limit looks at the upper bits, which depend on all others).
fn sender() -> Vec<libc::sock_filter> {
    const SPREAD: [u32; 2] = [0x9e37_79b1, 0x85eb_ca6b];
    let mut v6 = vec![statement(LOAD_WORD, IP + 8)];
    for offset in [12, 16, 20] {
        v6.extend([statement(STORE, 0), statement(LOAD_X, 0), statement(LOAD_WORD, IP + offset), statement(XOR_X, 0)]);
    }
    v6.extend([statement(STORE, 0), statement(LOAD_HALF, IP + 40)]);
    let v4 = [
        statement(LOAD_WORD, IP + 12),
        statement(STORE, 0),
        statement(LOAD_X_HEADER_LENGTH, IP),
        statement(LOAD_HALF_BEHIND_X, IP),
        statement(JUMP, u32::try_from(v6.len()).unwrap_or(0)),
    ];
    let is_v4 = jump(JUMP_IF_EQUAL, 4, 0, u8::try_from(v4.len()).unwrap_or(0));
    let mut statements = vec![statement(LOAD_BYTE, IP), statement(SHIFT_RIGHT, 4), is_v4];
    statements.extend(v4);
    statements.extend(v6);
    statements.extend([
        statement(MULTIPLY, SPREAD[0]),
        statement(LOAD_X, 0),
        statement(XOR_X, 0),
        statement(MULTIPLY, SPREAD[1]),
    ]);
    statements
}

/// Goes on where equal, and else behind the answer; `probe` fills in how far that is.
const fn is(value: u32) -> libc::sock_filter {
    jump(JUMP_IF_EQUAL, value, 0, 0)
}

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket,
        sockopt,
    };

    use super::*;

    fn member(address: SocketAddr) -> TcpListener {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
        setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address)).unwrap();
        listen(&fd, Backlog::new(512).unwrap()).unwrap();
        TcpListener::from(fd)
    }

    /// A connection from a source port that was steered before it is used.
    fn probe(group: &TcpListener, to: SocketAddr, steering: impl Fn(SocketAddr) -> Steering) -> TcpStream {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(SocketAddr::new(to.ip(), 0))).unwrap();
        let source: SockaddrStorage = getsockname(std::os::fd::AsRawFd::as_raw_fd(&fd)).unwrap();
        let port = source.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::port);
        let port = port.or_else(|| source.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port)).unwrap();
        steer(group.as_fd(), &steering(SocketAddr::new(to.ip(), port))).unwrap();
        nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(to)).unwrap();
        TcpStream::from(fd)
    }

    fn accepted(listener: &TcpListener) -> usize {
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn only_the_probe_reaches_the_new_socket() {
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let old = member(listen.parse().unwrap());
            let to = SocketAddr::new(connect.parse().unwrap(), old.local_addr().unwrap().port());
            let new = member(old.local_addr().unwrap());
            for _ in 0..20 {
                let probe = probe(&old, to, |client| Steering {
                    serving: vec![(0, 1)],
                    draw: Draw::Chance,
                    probes: vec![(client, 1)],
                });
                let other = TcpStream::connect(to).unwrap();
                assert_eq!((accepted(&old), accepted(&new)), (1, 1), "{listen} from {connect}");
                drop((probe, other));
            }
        }
    }

    #[test]
    fn the_cut_over_is_one_call() {
        let old = member("127.0.0.1:0".parse().unwrap());
        let to = old.local_addr().unwrap();
        let new = member(to);
        for (serving, expected) in [(0, (50, 0)), (1, (0, 50)), (0, (50, 0))] {
            steer(new.as_fd(), &Steering { serving: vec![(serving, 1)], draw: Draw::Chance, probes: Vec::new() })
                .unwrap();
            let clients: Vec<_> = (0..50).map(|_| TcpStream::connect(to).unwrap()).collect();
            assert_eq!((accepted(&old), accepted(&new)), expected);
            drop(clients);
        }
    }

    #[test]
    fn each_gets_what_its_weight_says_and_the_probe_is_nobody_elses() {
        let first = member("127.0.0.1:0".parse().unwrap());
        let to = first.local_addr().unwrap();
        let members = [member(to), member(to), member(to)];
        for serving in [vec![(1, 1), (2, u64::MAX)], vec![(2, 1), (1, 0)]] {
            let clients: Vec<_> = (0..50)
                .map(|_| {
                    probe(&first, to, |client| Steering {
                        serving: serving.clone(),
                        draw: Draw::Chance,
                        probes: vec![(client, 3)],
                    })
                })
                .collect();
            let others: Vec<_> = (0..50).map(|_| TcpStream::connect(to).unwrap()).collect();
            let counts = members.each_ref().map(accepted);
            assert_eq!((accepted(&first), counts), (0, [0, 50, 50]));
            drop((clients, others));
        }
    }
}
