//! The network of the host, and sockets that have a name but no file.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::harness::{Session, WAYS, perl, perl_command, wall_seconds, world};

#[test]
fn loopback_of_the_host() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.set_nonblocking(true).expect("our own socket");
    let text = format!(
        r#"
sub reach {{ socket(my $s, AF_INET, $_[0], 0) or die; connect($s, sockaddr_in($_[1], inet_aton('127.0.0.1'))) && send $s, 'x', 0 }}
denied('tcp', reach(SOCK_STREAM, {tcp})); reach(SOCK_DGRAM, {udp});
socket(my $server, AF_INET, SOCK_STREAM, 0); bind $server, sockaddr_in(0, inet_aton('127.0.0.1')); listen $server, 1;
allowed('my own', getsockname $server);
denied('elsewhere', do {{ socket(my $s, AF_INET, SOCK_DGRAM, 0); connect $s, sockaddr_in(53, inet_aton('192.0.2.1')) }});
"#,
        tcp = tcp.local_addr().expect("bound").port(),
        udp = udp.local_addr().expect("bound").port(),
    );
    world().withstands(&[perl("connecting to the host", &text)]);
    assert!(udp.recv(&mut [0]).is_err(), "a datagram got out");
}

#[test]
fn abstract_sockets_of_the_host() {
    let name = format!("pgsh-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listening = UnixListener::bind_addr(&address).expect("a name of our own");
    let text = format!(
        r#"
sub reach {{ socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; connect($s, pack 'Sa*', 1, "\0$_[0]") ? 1 : undef }}
denied('of the host', reach('{name}'));
socket(my $server, AF_UNIX, SOCK_STREAM, 0); bind $server, pack 'Sa*', 1, "\0mine"; listen $server, 1; allowed('of mine', reach('mine'));
"#
    );
    world().withstands(&[perl("connecting to a name", &text)]);
}

#[test]
fn abstract_sockets_of_two_sessions() {
    let listen = "socket(my $server, AF_UNIX, SOCK_STREAM, 0); bind $server, pack 'Sa*', 1, \"\\0pgsh-between\" or die; listen $server, 5; ready();";
    let reach = "socket(my $s, AF_UNIX, SOCK_STREAM, 0); fails('connect', 'ECONNREFUSED', connect $s, pack 'Sa*', 1, \"\\0pgsh-between\");
      socket(my $server, AF_UNIX, SOCK_STREAM, 0); allowed('a name that another has', bind $server, pack 'Sa*', 1, \"\\0pgsh-between\");";
    for held in WAYS {
        world().while_held(held, listen, |_| {
            for way in WAYS {
                let seen = Session::new(world(), way, &[]).run(&perl("", reach).command);
                assert_eq!(seen.output, "end\n", "{way:?} beside {held:?}");
            }
        });
    }
}

/// Whoever has a command's standard output keeps the command from ending.
#[test]
fn output_handed_to_another_session() {
    let keep = "socket(my $server, AF_UNIX, SOCK_DGRAM, 0); bind $server, pack 'Sa*', 1, \"\\0pgsh-keep\" or die; ready();";
    let hand = perl_command(&format!(
        r#"
socket(my $s, AF_UNIX, SOCK_DGRAM, 0); connect $s, pack 'Sa*', 1, "\0pgsh-keep"; my $byte = 'x';
my $control = pack('QiiiI', 20, 1, 1, 1, 0); my $vector = pack('PQ', $byte, 1);
my $message = pack('QIx4PQPQi', 0, 0, $vector, 1, $control, 24, 0) . "\0" x 4; call({}, fileno $s, $message, 0); print "end\n";"#,
        libc::SYS_sendmsg
    ));
    for way in WAYS {
        world().while_held(way, keep, |_| {
            let began = std::time::Instant::now();
            let seen = Session::new(world(), way, &[wall_seconds(20)]).run(&hand);
            assert_eq!(seen.output, "end\n", "{way:?}");
            assert!(
                began.elapsed().as_secs() < 10,
                "{way:?}: it waited for another's end"
            );
        });
    }
}

#[test]
fn what_the_host_is_connected_to() {
    let text = r#"
for my $file (qw(unix tcp tcp6 udp raw route arp netlink packet)) { open my $f, '<', "/proc/net/$file" or next;
  my @lines = <$f>; shift @lines; @lines = grep { !/^\S+\s+\d+\s+0\s/ } @lines if $file eq 'netlink'; # the kernel's own
  print "$file: ", scalar(@lines), " lines\n" if @lines }
open my $devices, '<', '/proc/net/dev' or print "no list of devices\n"; my @names = map { /^\s*(\w+):/ } <$devices>;
print "device $_\n" for grep { $_ ne 'lo' } @names; socket(my $s, AF_INET, SOCK_DGRAM, 0); allowed('a socket', fileno $s);
"#;
    world().withstands(&[perl("tables of the network", text)]);
}
