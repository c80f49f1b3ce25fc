//! System calls, socket families and calling conventions that no command needs.

use crate::harness::{Attack, bash, perl, world};

/// Perl's arguments of a call that must answer with an error, and which.
type Call = (&'static str, libc::c_long, &'static str, &'static str);

fn calls(name: &str, control: &str, calls: &[Call]) -> Attack {
    let mut text = String::from(
        "my $nothing = ''; my $path = \"/tmp\\0\"; my $type = \"tmpfs\\0\"; my $zeros = \"\\0\" x 256;\n",
    );
    for (call, number, arguments, errno) in calls {
        text += &format!("fails('{call}({arguments})', '{errno}', call({number}, {arguments}));\n");
    }
    perl(name, &(text + control))
}

#[test]
fn mounts_and_namespaces() {
    let control = format!(
        "my $child = call({}, {}, 0, 0, 0, 0); POSIX::_exit(7) if $child == 0;
         waitpid $child, 0; print \"CONTROL FAILED: clone: $?\\n\" if $? != 7 << 8;",
        libc::SYS_clone,
        libc::SIGCHLD
    );
    let mut all = vec![
        (
            "mount",
            libc::SYS_mount,
            "$type, $path, $type, 0, 0",
            "EPERM",
        ),
        (
            "mount bind",
            libc::SYS_mount,
            "$path, $path, 0, 4096, 0",
            "EPERM",
        ),
        (
            "mount remount",
            libc::SYS_mount,
            "0, $path, 0, 32, 0",
            "EPERM",
        ),
        ("umount2", libc::SYS_umount2, "$path, 2", "EPERM"),
        ("pivot_root", libc::SYS_pivot_root, "$path, $path", "EPERM"),
        ("chroot", libc::SYS_chroot, "$path", "EPERM"),
        ("open_tree", libc::SYS_open_tree, "-100, $path, 1", "EPERM"),
        ("open_tree_attr", 467, "-100, $path, 1, 0, 0", "EPERM"),
        (
            "move_mount",
            libc::SYS_move_mount,
            "-100, $path, -100, $path, 0",
            "EPERM",
        ),
        ("fsopen", libc::SYS_fsopen, "$type, 0", "EPERM"),
        ("fspick", libc::SYS_fspick, "-100, $path, 0", "EPERM"),
        ("fsconfig", libc::SYS_fsconfig, "0, 0, 0, 0, 0", "EPERM"),
        ("fsmount", libc::SYS_fsmount, "0, 0, 0", "EPERM"),
        (
            "mount_setattr",
            libc::SYS_mount_setattr,
            "-100, $path, 0, $zeros, 32",
            "EPERM",
        ),
        ("setns", libc::SYS_setns, "0, 0", "EPERM"),
        ("clone3", libc::SYS_clone3, "$zeros, 88", "ENOSYS"),
    ];
    let (mut unshare, mut clone) = (Vec::new(), Vec::new());
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWTIME,
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS,
        libc::CLONE_FS,
        0,
    ] {
        unshare.push(format!("{flag}"));
        if flag & !(libc::CLONE_NEWTIME | libc::CLONE_FS) != 0 {
            clone.push(format!("{}, 0, 0, 0, 0", flag | libc::SIGCHLD));
        }
    }
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    all.extend(
        unshare
            .into_iter()
            .map(|a| ("unshare", libc::SYS_unshare, leak(a), "EPERM")),
    );
    all.extend(
        clone
            .into_iter()
            .map(|a| ("clone", libc::SYS_clone, leak(a), "EPERM")),
    );
    world().withstands(&[
        calls("mount and namespace calls", &control, &all),
        bash(
            "namespaces by their programs",
            "for n in user mount net pid uts ipc cgroup time; do denied unshare --$n true; done; denied unshare -Urmpf true
             denied nsenter -t 1 -a true; denied nsenter -t $$ -U true; denied chroot / true; denied chroot /tmp /bin/true
             denied hostname other; denied ip link add x type dummy; allowed hostname; allowed nice true
             bash -c 'exec 4</proc/self/ns/user' || echo 'CONTROL FAILED: no namespace to enter'",
        ),
    ]);
}

#[test]
fn kernel_and_other_processes() {
    let control = format!(
        "allowed('memfd_create', call({}, $path, 0)); allowed('getpid', call({})); allowed('epoll_create1', call({}, 0));",
        libc::SYS_memfd_create,
        libc::SYS_getpid,
        libc::SYS_epoll_create1
    );
    let all = [
        ("bpf", libc::SYS_bpf, "0, $zeros, 64", "EPERM"),
        ("bpf", libc::SYS_bpf, "5, $zeros, 64", "EPERM"),
        (
            "io_uring_setup",
            libc::SYS_io_uring_setup,
            "4, $zeros",
            "EPERM",
        ),
        (
            "io_uring_enter",
            libc::SYS_io_uring_enter,
            "0, 0, 0, 0, 0, 0",
            "EPERM",
        ),
        (
            "io_uring_register",
            libc::SYS_io_uring_register,
            "0, 0, 0, 0",
            "EPERM",
        ),
        (
            "add_key",
            libc::SYS_add_key,
            "$type, $path, $type, 5, -3",
            "EPERM",
        ),
        (
            "request_key",
            libc::SYS_request_key,
            "$type, $path, 0, -3",
            "EPERM",
        ),
        ("keyctl", libc::SYS_keyctl, "0, -3, 1, 0, 0", "EPERM"),
        ("keyctl", libc::SYS_keyctl, "1, 0, 0, 0, 0", "EPERM"),
        ("userfaultfd", libc::SYS_userfaultfd, "0", "EPERM"),
        ("userfaultfd", libc::SYS_userfaultfd, "1", "EPERM"),
        (
            "perf_event_open",
            libc::SYS_perf_event_open,
            "$zeros, 0, -1, -1, 0",
            "EPERM",
        ),
        ("ptrace me", libc::SYS_ptrace, "0, 0, 0, 0", "EPERM"),
        ("ptrace attach", libc::SYS_ptrace, "16, 1, 0, 0", "EPERM"),
        (
            "ptrace seize",
            libc::SYS_ptrace,
            "16902, getppid(), 0, 0",
            "EPERM",
        ),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            "1, 0, 0, 0, 0, 0",
            "EPERM",
        ),
        (
            "process_vm_writev",
            libc::SYS_process_vm_writev,
            "1, 0, 0, 0, 0, 0",
            "EPERM",
        ),
        (
            "process_madvise",
            libc::SYS_process_madvise,
            "0, 0, 0, 0, 0",
            "EPERM",
        ),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, "0, 0, 0", "EPERM"),
        ("kcmp", libc::SYS_kcmp, "1, $$, 0, 0, 0", "EPERM"),
        (
            "name_to_handle_at",
            libc::SYS_name_to_handle_at,
            "-100, $path, $zeros, $zeros, 0",
            "EPERM",
        ),
        (
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            "0, $zeros, 0",
            "EPERM",
        ),
        ("fanotify_init", libc::SYS_fanotify_init, "0, 0", "EPERM"),
        (
            "fanotify_init without rights",
            libc::SYS_fanotify_init,
            "0x200, 0",
            "EPERM",
        ),
        (
            "init_module",
            libc::SYS_init_module,
            "$zeros, 0, $nothing",
            "EPERM",
        ),
        (
            "finit_module",
            libc::SYS_finit_module,
            "0, $nothing, 0",
            "EPERM",
        ),
        (
            "delete_module",
            libc::SYS_delete_module,
            "$path, 0",
            "EPERM",
        ),
        ("kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0", "EPERM"),
        (
            "kexec_file_load",
            libc::SYS_kexec_file_load,
            "0, 0, 0, 0, 0",
            "EPERM",
        ),
        ("reboot", libc::SYS_reboot, "0, 0, 0, 0", "EPERM"),
        ("syslog", libc::SYS_syslog, "3, $zeros, 100", "EPERM"),
        ("acct", libc::SYS_acct, "$path", "EPERM"),
        ("swapon", libc::SYS_swapon, "$path, 0", "EPERM"),
        ("swapoff", libc::SYS_swapoff, "$path", "EPERM"),
        ("quotactl", libc::SYS_quotactl, "0, $path, 0, 0", "EPERM"),
        ("settimeofday", libc::SYS_settimeofday, "$zeros, 0", "EPERM"),
        (
            "clock_settime",
            libc::SYS_clock_settime,
            "0, $zeros",
            "EPERM",
        ),
        ("adjtimex", libc::SYS_adjtimex, "$zeros", "EPERM"),
        (
            "clock_adjtime",
            libc::SYS_clock_adjtime,
            "0, $zeros",
            "EPERM",
        ),
        ("sethostname", libc::SYS_sethostname, "$path, 4", "EPERM"),
        (
            "setdomainname",
            libc::SYS_setdomainname,
            "$path, 4",
            "EPERM",
        ),
        ("vhangup", libc::SYS_vhangup, "0", "EPERM"),
        (
            "lookup_dcookie",
            libc::SYS_lookup_dcookie,
            "0, $zeros, 100",
            "EPERM",
        ),
        ("mbind", libc::SYS_mbind, "0, 0, 0, 0, 0, 0", "EPERM"),
        ("set_mempolicy", libc::SYS_set_mempolicy, "0, 0, 0", "EPERM"),
        (
            "set_mempolicy_home_node",
            libc::SYS_set_mempolicy_home_node,
            "0, 0, 0, 0",
            "EPERM",
        ),
        (
            "get_mempolicy",
            libc::SYS_get_mempolicy,
            "0, 0, 0, 0, 0",
            "EPERM",
        ),
        (
            "migrate_pages",
            libc::SYS_migrate_pages,
            "1, 0, 0, 0",
            "EPERM",
        ),
        (
            "move_pages",
            libc::SYS_move_pages,
            "1, 0, 0, 0, 0, 0",
            "EPERM",
        ),
        (
            "personality without random addresses",
            libc::SYS_personality,
            "0x0040000",
            "EPERM",
        ),
        (
            "personality that makes all executable",
            libc::SYS_personality,
            "0x0400000",
            "EPERM",
        ),
        (
            "personality of another system",
            libc::SYS_personality,
            "0x04000002",
            "EPERM",
        ),
    ];
    world().withstands(&[
        calls("calls to the kernel and to others", &control, &all),
        perl(
            "personalities that Docker allows",
            &format!(
                "allowed(\"personality $_\", call({0}, $_)) for 0xffffffff, 8, 0x20000, 0x20008, 0;",
                libc::SYS_personality
            ),
        ),
        #[cfg(target_arch = "x86_64")]
        calls(
            "calls of x86 alone",
            "",
            &[
                ("iopl", libc::SYS_iopl, "3", "EPERM"),
                ("ioperm", libc::SYS_ioperm, "0, 1, 1", "EPERM"),
                ("modify_ldt", libc::SYS_modify_ldt, "0, $zeros, 16", "EPERM"),
                ("uselib", libc::SYS_uselib, "$path", "EPERM"),
                ("ustat", libc::SYS_ustat, "0, $zeros", "EPERM"),
                ("sysfs", libc::SYS_sysfs, "3", "EPERM"),
            ],
        ),
    ]);
}

#[test]
fn sockets() {
    let (socket, socketpair) = (libc::SYS_socket, libc::SYS_socketpair);
    world().withstands(&[
        perl(
            "families",
            &format!(
                r#"
my %allowed = map {{ $_ => 1 }} AF_UNIX, AF_INET, AF_INET6;
for my $family (0 .. 45, 255, 65535, 0xffffffff, (1 << 32) | 16, (1 << 32) | 38) {{
  for my $type (1, 2, 3, 5, 10, 2 | 02000000 | 04000) {{
    next if $allowed{{$family}};
    fails("socket $family $type", 'EPERM', call({socket}, $family, $type, 0));
    fails("socketpair $family $type", 'EPERM', call({socketpair}, $family, $type, 0, my $two = "\0" x 8));
  }}
}}
allowed("socket $_", call({socket}, $_, 1, 0)) for AF_UNIX, AF_INET, AF_INET6;
allowed("socketpair", call({socketpair}, 1, 1, 0, my $two = "\0" x 8));
"#
            ),
        ),
        perl(
            "raw sockets",
            &format!(
                r#"
for my $family (AF_INET, AF_INET6) {{
  fails("raw $family $_", 'EPERM', call({socket}, $family, 3, $_)) for 1, 6, 17, 58, 255;
  denied("packet $family", call({socket}, $family, 10, 0x0300));
}}
allowed("stream", call({socket}, AF_INET, 1, 0));
"#
            ),
        ),
    ]);
}

#[test]
fn terminals() {
    world().withstands(&[perl(
        "typing into a terminal",
        &format!(
            r#"
open my $null, '+<', '/dev/null'; my $byte = "x";
for my $fd (0, 1, 2, fileno $null) {{
  for my $request (0x5412, 0x541c, (1 << 32) | 0x5412, (5 << 40) | 0x541c) {{
    fails("ioctl $fd $request", 'EPERM', call({ioctl}, $fd, $request, $byte));
  }}
  fails("another ioctl $fd", 'ENOTTY', call({ioctl}, $fd, 0x5401, my $termios = "\0" x 64));
}}
denied("a terminal", open my $tty, '+<', $_) for qw(/dev/tty /dev/ptmx /dev/pts/0 /dev/console);
"#,
            ioctl = libc::SYS_ioctl
        ),
    )]);
}

/// Programs made of bytes, so that any instruction can be had.
#[cfg(target_arch = "x86_64")]
const ELF: &str = r#"
sub program { my ($path, $code) = @_; my $all = 120 + length $code;
  my $elf = "\x7fELF" . pack('C12', 2, 1, 1, (0) x 9) . pack('vvVQQQVv6', 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    . pack('VVQ6', 1, 5, 0, 0x400000, 0x400000, $all, $all, 0x1000) . $code;
  open my $f, '>', $path or die; syswrite $f, $elf; close $f; chmod 0755, $path }
sub mov { "\xb8" . pack('V', $_[0]) . "\xbb" . pack('V', $_[1]) . "\xbf" . pack('V', $_[1]) }
"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn other_calling_conventions() {
    let x32 = 0x4000_0000;
    world().withstands(&[
        perl(
            "calls of 32 bits from a program of 64",
            &format!(
                r#"{ELF}
program('/tmp/exit64', mov(60, 7) . "\x0f\x05"); system '/tmp/exit64';
print "CONTROL FAILED: exit by syscall: $?\n" if $? != 7 << 8;
# exit, then getpid, mount, unshare, ptrace and keyctl of i386, each of which would go on to exit with 7.
for my $number (1, 20, 21, 310, 26, 288) {{
  program("/tmp/int80", mov($number, 7) . "\xcd\x80" . mov(60, 7) . "\x0f\x05"); system '/tmp/int80';
  print "call $number of i386: $?\n" if ($? & 127) != 31;
}}
"#
            ),
        ),
        perl(
            "calls of x32",
            &format!(
                r#"
for my $number ({ptrace}, {unshare}, {mount}, {keyctl}, {bpf}, {uring}, {socket}, 521, 538, 540) {{
  denied("x32 $number", call({x32} | $number, 16, 0, 0, 0, 0));
  denied("x32 $number, sign-extended", call(-2147483648 | {x32} | $number, 16, 0, 0, 0, 0));
}}
allowed("not x32", call({getpid}));
"#,
                ptrace = libc::SYS_ptrace,
                unshare = libc::SYS_unshare,
                mount = libc::SYS_mount,
                keyctl = libc::SYS_keyctl,
                bpf = libc::SYS_bpf,
                uring = libc::SYS_io_uring_setup,
                socket = libc::SYS_socket,
                getpid = libc::SYS_getpid,
            ),
        ),
        perl(
            "a program in a memory file, and the filter in it",
            &format!(
                r#"{ELF}
program('/tmp/unshare', mov({unshare}, 0x10000000) . "\x0f\x05" . "\x89\xc7\xb8\x3c\0\0\0\x0f\x05");
open my $from, '<', '/tmp/unshare'; sysread $from, my $bytes, 1000; my $name = "x\0";
my $fd = call({memfd}, $name, 0); open my $m, '>&=', $fd; syswrite $m, $bytes;
for my $path ('/tmp/unshare', "/proc/$$/fd/$fd") {{
  system $path; print "$path: $?\n" if $? != 255 << 8; # -EPERM, of which exit keeps eight bits
  system 'bash', '-c', "exec $path"; print "$path from bash: $?\n" if $? != 255 << 8;
}}
system 'bash', '-c', 'grep -q "^Seccomp:.2$" /proc/self/status || echo no filter';
"#,
                unshare = libc::SYS_unshare,
                memfd = libc::SYS_memfd_create,
            ),
        ),
        perl(
            "a filter of one's own does not take the place of ours",
            &format!(
                r#"
my $allow_all = pack('SCCL', 6, 0, 0, 0x7fff0000); my $program = pack('Sx6P', 1, $allow_all);
allowed('a filter', call({seccomp}, 1, 0, $program));
fails('unshare', 'EPERM', call({unshare}, 0x10000000)); fails('keyctl', 'EPERM', call({keyctl}, 0, -3, 0, 0, 0));
fails('strict mode undone', 'EINVAL', call({prctl}, 22, 0, 0, 0, 0));
"#,
                seccomp = libc::SYS_seccomp,
                unshare = libc::SYS_unshare,
                keyctl = libc::SYS_keyctl,
                prctl = libc::SYS_prctl,
            ),
        ),
    ]);
}
