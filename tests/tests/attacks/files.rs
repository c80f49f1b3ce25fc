//! Writing where nothing may be written, and leaving by links, renames and dots.

use crate::harness::{Session, WAYS, bash, perl, world};

#[test]
fn a_write_on_every_mount() {
    world().withstands(&[
        perl(
            "every mount there is",
            r#"
my %writable = map { $_ => 1 } qw(/home/sandbox /tmp /dev/shm);
open my $table, '<', '/proc/self/mountinfo' or die; my $seen = 0;
while (<$table>) {
  my ($mount, $options) = (split)[4, 5];
  print "$mount honours set-uid\n" if $options !~ /nosuid/ && $mount ne '/proc';
  print "$mount has devices\n" if $options !~ /nodev/ && $mount !~ m{^/dev/\w+$} && $mount ne '/proc';
  if (-d $mount) {
    my $file = "$mount/attack";
    my $made = open my $f, '>', $file;
    if ($writable{$mount}) { allowed("write $mount", $made); $seen++; unlink $file; next }
    denied("create $file", $made);
    denied("mkdir $file", mkdir $file); denied("symlink $file", symlink '/', $file);
    denied("chmod $mount", chmod 0777, $mount) if $mount ne '/';
    denied("utime $mount", utime 1, 1, $mount);
    next if $mount eq '/proc';
    opendir(my $d, $mount); my ($entry) = grep { !/^\.\.?$/ } readdir $d; $entry = "$mount/" . ($entry // "attack");
    denied("rename $entry", rename $entry, '/tmp/stolen'); denied("unlink $entry", unlink $entry);
    denied("chmod $entry", chmod 0777, $entry); denied("link $entry", link $entry, '/tmp/stolen');
  } elsif ($mount !~ m{^/dev/}) {
    denied("append $mount", open my $f, '>>', $mount);
  }
  denied("chmod $mount", chmod 0777, $mount); denied("unlink $mount", unlink $mount);
  denied("chown $mount", chown 1000, 1000, $mount); denied("utime $mount", utime 1, 1, $mount);
  denied("truncate $mount", truncate $mount, 0) if $mount !~ m{^/dev/};
}
print "only $seen can be written\n" if $seen != 3;
"#,
        ),
        bash(
            "every file and folder of the system",
            "find /usr /etc -xdev -maxdepth 3 -writable -not -type l -print 2>/dev/null | head
             find / -xdev -writable -not -type l -print 2>/dev/null | grep -vxE '/tmp|/home/sandbox|/dev/shm|/dev/(full|null|random|urandom|zero)'
             for file in /bin/bash /usr/bin/env /etc/passwd /etc/ld.so.cache; do denied dd if=/dev/null of=$file; denied touch $file
               denied mv /tmp/nothing $file; denied rm -f $file; denied ln -f /etc/hosts $file; done
             for folder in /usr /usr/bin /usr/local/bin /etc /run /var /dev /home / /proc; do denied touch $folder/attack; done
             allowed touch /tmp/mine /home/sandbox/mine /dev/shm/mine",
        ),
        perl(
            "what /proc lets one write",
            // What is there is written again, so that nothing is harmed where it works.
            r#"
my $tried = 0;
sub walk { my $folder = shift; opendir(my $d, $folder) or return;
  for my $path (map { "$folder/$_" } grep { !/^\.\.?$/ } readdir $d) {
    next if $path =~ m{^/proc/(\d+|self|thread-self|pressure)$}; my $mode = (lstat $path)[2] // next;
    if (S_ISDIR($mode)) { walk($path) } elsif (S_ISREG($mode) && $mode & 0222) {
      $tried++; denied($path, writes($path, $path =~ /sysrq/ ? 'h' : reads_all($path))) } } }
sub reads_all { my $f = opens('<', $_[0]) or return "0\n"; sysread $f, my $bytes, 4000; $bytes }
walk('/proc'); print "$tried files\n" if $tried < 100;
allowed('my own', writes('/proc/self/comm', 'mine')); denied('core_pattern', writes('/proc/sys/kernel/core_pattern', "core\n"));
"#,
        ),
        perl(
            "attributes, locks and leases of the system's files",
            r#"
my $file = '/usr/bin/env'; open my $f, '<', $file or die;
denied('O_RDWR by the descriptor', open(my $again, '+<', '/proc/self/fd/' . fileno $f));
denied('a lease', fcntl($f, 1024, 1)); denied('truncate', truncate $f, 0); denied('chmod', chmod 0777, $f);
open my $mine, '>', '/tmp/mine' or die;
allowed('my own', open(my $same, '+<', '/proc/self/fd/' . fileno $mine)); allowed('my mode', chmod 0600, $mine);
"#,
        ),
    ]);
}

#[test]
fn dots_and_roots() {
    world().withstands(&[
        bash(
            "up and up",
            "cd /tmp; for path in / /.. /../../.. /proc/self/root /proc/self/root/.. /proc/self/root/../../.. /proc/self/cwd/../.. \
               /usr/.. /usr/bin/../.. /home/sandbox/../.. /dev/shm/../.. /proc/.. /proc/self/fd/../../..; do
               [[ $(stat -Lc %d:%i $path) == $(stat -Lc %d:%i /) ]] || echo $path is elsewhere
               denied ls $path/{bait}; denied ls $path/root; denied ls $path/sys/kernel; denied cat $path/etc/shadow
             done
             allowed ls /proc/self/root/tmp; cd /; cd ..; cd ../..; [[ $(pwd -P) == / ]] || pwd -P",
        ),
        perl(
            "a folder kept open, then moved",
            r#"
mkdir '/tmp/a'; mkdir '/tmp/a/b'; mkdir '/tmp/a/b/c'; chdir '/tmp/a/b/c' or die;
rename '/tmp/a/b/c', '/tmp/c' or die;
allowed('moved', chdir '..'); print POSIX::getcwd(), "\n" if POSIX::getcwd() ne '/tmp';
mkdir '/home/sandbox/d'; chdir '/home/sandbox/d'; rmdir '/home/sandbox/d';
denied('up from a folder that is gone', chdir('../../../..') && -e 'root' || undef);
denied("up $_", -e ('../' x $_) . 'etc/shadow' || undef) for 1 .. 40;
denied("down again", -e ('../' x 40) . 'tmp/../../../{bait}/secret' || undef);
"#,
        ),
        bash(
            "the folders that are one's own, moved or replaced",
            "cd /; for folder in /home/sandbox /tmp /dev/shm /home /proc /usr; do
               denied rmdir $folder; denied mv -T $folder /tmp/moved; denied mv -T $folder /home/sandbox/moved; denied ln -sfT / $folder
             done; allowed mkdir /tmp/a; allowed mv -T /tmp/a /tmp/b; allowed rmdir /tmp/b; allowed test -d /home/sandbox",
        ),
        bash(
            "hard links to what is not one's own",
            "for file in /etc/passwd /bin/bash /dev/null /proc/self/status /proc/1/status; do
               denied ln $file /tmp/link; denied ln -P $file /home/sandbox/link; done
             echo > /tmp/a; allowed ln /tmp/a /tmp/link; denied ln /tmp/a /home/sandbox/link; denied ln /proc/self/fd/1 /tmp/link2",
        ),
    ]);
}

/// What a step outside could follow: links from every name that it may touch to files of the host.
const PLANT: &str = "
for folder in ~ /tmp /dev/shm; do
  cd $folder
  for name in .bashrc .bash_profile .bash_login .profile .bash_logout .bash_history .inputrc .pg_shell .config .cache \
    .local .ssh output stdout stderr state exit_code run.sh box metadata upper work merged tmp core; do
    ln -sfn {bait}/writable $name
  done
  ln -sfn {bait}/open folder; ln -sfn {bait} up; ln -sfn / root; ln -sfn loop loop
  mkdir deep; ln -sfn {bait}/open deep/$(printf 'x%.0s' {1..200})
  touch '-rf' '--' '*' $'new\\nline' $'\\xff\\xfe'; mkfifo fifo; chmod 0 '*'
done
mkdir /tmp/cwd; cd /tmp/cwd";

#[test]
fn links_planted_for_a_step_outside() {
    let world = world();
    for way in WAYS {
        let mut session = Session::new(world, way, &[]);
        session.anew();
        let planted = session.run(&format!(
            "{PLANT}; readlink ~/.bashrc; rmdir /tmp/cwd; ln -s {{bait}}/open /tmp/cwd"
        ));
        assert_eq!(planted.exit, Some(0), "{planted:?}");
        assert!(planted.output.ends_with("/writable\n"), "{planted:?}");
        world.is_untouched();
        // The next command begins where the link was; and so does a fork of the session.
        let next = session.run("pwd >/dev/null; echo attack > file; echo attack > ~/.bashrc; echo attack > /tmp/output; echo done");
        assert!(next.output.ends_with("done\n"), "{next:?}");
        if let Some(user) = session.user {
            let last = session.db.one::<i64>(
                "select max(id) from shell.commands where user_id = $1",
                &[&user],
            );
            let sql = "select shell.fork_session(user_id => $1, source_command_id => $2)";
            let fork: uuid::Uuid = session.db.one(sql, &[&user, &last]);
            session.db.wait(session.db.submit_to(
                user,
                fork,
                "echo attack > ~/.bashrc; echo attack > output",
            ));
        }
        world.is_untouched();
    }
}

#[test]
fn a_working_directory_that_leads_out() {
    let world = world();
    let paths = [
        "/proc/1/root",
        "/proc/1/cwd",
        "/proc/self/root/..",
        "/proc/self/fd/3",
        "/proc/self/fd/4",
        "/proc/self/fd/5",
        "/proc/self/fd/300",
        "/proc/self/fd/301",
        "/proc/thread-self/fd/3",
        "/../../..",
        "{bait}",
        "{data}",
        "/root",
        "/sys",
    ];
    let where_am_i = "pwd -P; ls {bait} /root /sys 2>/dev/null; echo; [[ $PWD == / || $PWD == /home/sandbox || $PWD == /proc/* ]]";
    for way in WAYS {
        let mut session = Session::new(world, way, &[]);
        for path in paths {
            let path = path
                .replace("{bait}", &world.bait().to_string_lossy())
                .replace("{data}", &world.data.to_string_lossy());
            let output = match session.user {
                Some(user) => {
                    let new = session.db.session(user);
                    session.db.query(
                        "update shell.environments set cwd = $2::text where id = $1",
                        &[&new, &path],
                    );
                    let row = session.db.wait(session.db.submit_to(
                        user,
                        new,
                        &where_am_i.replace("{bait}", &world.bait().to_string_lossy()),
                    ));
                    assert_eq!(row.exit_code, Some(0), "{path}: {row:?}");
                    row.stdout.unwrap_or_default()
                }
                None => {
                    let command = where_am_i.replace("{bait}", &world.bait().to_string_lossy());
                    let rows = session.db.query(
                        "select exit_code, output from shell.run_command($1, '{}', $2)",
                        &[&path, &command],
                    );
                    assert_eq!(rows[0].get::<_, i32>(0), 0, "{path}: {rows:?}");
                    let output: String = rows[0].get(1);
                    output
                        .lines()
                        .filter(|line| !line.starts_with("pg_shell:"))
                        .map(|line| format!("{line}\n"))
                        .collect()
                }
            };
            let place = output
                .strip_suffix("\n\n")
                .unwrap_or_else(|| panic!("{path}: {output}"));
            assert!(
                ["/", "/home/sandbox"].contains(&place),
                "{path} led to {place}"
            );
        }
        session.anew();
        let control = session.run("cd /tmp; pwd -P");
        assert_eq!(control.output, "/tmp\n");
    }
    world.is_untouched();
}
