"""The seccomp filter of the sandbox: the system calls a Python program may make, in classic BPF.

Files, memory, threads, time, signals to itself, pipes and socket pairs. Not: processes, programs, sockets, mounts,
namespaces, tracing, keys, files in memory, or any call that is not named here. A refused call fails with EPERM.
"""

import errno
import struct
from typing import NamedTuple

_CALLS = """
read 0 63; write 1 64; futex 202 98; mmap 9 222; munmap 11 215; brk 12 214; lseek 8 62; fstat 5 80; openat 257 56
close 3 57; newfstatat 262 79; rt_sigaction 13 134; rt_sigprocmask 14 135; getrandom 318 278; clock_gettime 228 113
readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70; open 2 -; creat 85 -
close_range 436 436; stat 4 -; lstat 6 -; statx 332 291; access 21 -; faccessat 269 48; faccessat2 439 439
readlink 89 -; readlinkat 267 78; getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -; mkdirat 258 34; rmdir 84 -
unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38; renameat2 316 276; symlink 88 -; symlinkat 266 36
link 86 -; linkat 265 37; truncate 76 45; ftruncate 77 46; fallocate 285 47; chmod 90 -; fchmod 91 52; fchmodat 268 53
umask 95 166; utimensat 280 88; getdents64 217 61; getdents 78 -; fsync 74 82; fdatasync 75 83; statfs 137 43
fstatfs 138 44; copy_file_range 326 285; sendfile 40 71; flock 73 32; mprotect 10 226; mremap 25 216; madvise 28 233
mincore 27 232; membarrier 324 283; rt_sigreturn 15 139; rt_sigpending 127 136; rt_sigtimedwait 128 137
rt_sigsuspend 130 133; sigaltstack 131 132; pause 34 -; alarm 37 -; setitimer 38 103; getitimer 36 102; ioctl 16 29
fcntl 72 25; dup 32 23; dup2 33 -; dup3 292 24; pipe 22 -; pipe2 293 59; socketpair 53 199; eventfd2 290 19
timerfd_create 283 85; timerfd_settime 286 86; timerfd_gettime 287 87; select 23 -; pselect6 270 72; poll 7 -
ppoll 271 73; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22
epoll_pwait2 441 441; sendto 44 206; recvfrom 45 207; sendmsg 46 211; recvmsg 47 212; shutdown 48 210
getsockname 51 204; getpeername 52 205; getsockopt 55 209; setsockopt 54 208; futex_waitv 449 449
set_robust_list 273 99; get_robust_list 274 100; rseq 334 293; set_tid_address 218 96; sched_yield 24 124
sched_getaffinity 204 123; sched_getparam 143 121; sched_getscheduler 145 120; sched_get_priority_max 146 125
sched_get_priority_min 147 126; nanosleep 35 101; clock_nanosleep 230 115; clock_getres 229 114; gettimeofday 96 169
time 201 -; times 100 153; getrusage 98 165; getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174
geteuid 107 175; getgid 104 176; getegid 108 177; getgroups 115 158; getresuid 118 148; getresgid 120 150
getpgid 121 155; getpgrp 111 -; getsid 124 156; uname 63 160; sysinfo 99 179; getcpu 309 168; getrlimit 97 163
arch_prctl 158 -; restart_syscall 219 128; exit 60 93; exit_group 231 94; wait4 61 260; waitid 247 95
"""
"""Name, number on x86-64, number on AArch64."""
_CHANGES = """
creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink symlinkat link linkat truncate fallocate
chmod fchmod fchmodat utimensat copy_file_range open openat
"""
"""Of these, those that change the file system; opening is looked at more closely."""

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE = 0, 4  # offsets in struct seccomp_data
_ARGUMENTS = (16, 24, 32)  # of these the low halves, on machines of little endian
_CLONE_THREAD = 0x00010000
_OPENS_TO_CHANGE = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000  # write, read and write, create, truncate, nameless file


class _Machine(NamedTuple):
    column: int
    audit: int
    clone: int
    prlimit: int
    tgkill: int


_MACHINES = {"x86_64": _Machine(1, 0xC000003E, 56, 302, 234), "aarch64": _Machine(2, 0xC00000B7, 220, 261, 131)}
_CLONE3 = 435


def filter_program(machine: str, *, signals: bool, changes: bool) -> bytes | None:
    """The filter as an array of `struct sock_filter`; None for a machine whose calls are not known here.

    Args:
        machine: As `os.uname` names it.
        signals: Whether threads may be signalled, which only a pid namespace confines to the program's own.
        changes: Whether files may be written and made, which only a mount namespace confines to the program's own.
    """
    if machine not in _MACHINES:
        return None
    numbers = _MACHINES[machine]
    rows = [row.split() for row in _CALLS.replace("\n", ";").split(";") if row.strip()]
    rows = [row for row in rows if row[numbers.column] != "-"]
    allowed = [int(row[numbers.column]) for row in rows if changes or row[0] not in _CHANGES.split()]
    steps = [
        _step(_LOAD, _MACHINE),
        _step(_EQUAL, numbers.audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, 0x40000000, 0, 1),  # the x32 calls of x86-64
        _step(_RETURN, _KILL),
    ]
    for number in [*allowed, *([numbers.tgkill] if signals else [])]:
        steps += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    steps += [_step(_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]  # libc falls back to clone
    steps += _only_if(numbers.clone, 0, _ANY_BIT, _CLONE_THREAD, holds=True)
    steps += _only_if(numbers.prlimit, 0, _ANY_BIT, 0xFFFFFFFF, holds=False)  # of itself
    if not changes:
        flags = {"open": 1, "openat": 2}
        for row in rows:
            if row[0] in flags:
                steps += _only_if(int(row[numbers.column]), flags[row[0]], _ANY_BIT, _OPENS_TO_CHANGE, holds=False)
    steps.append(_step(_RETURN, _ERRNO | errno.EPERM))
    return b"".join(steps)


def _only_if(number: int, argument: int, test: int, value: int, *, holds: bool) -> list[bytes]:
    """A call that is allowed only if a test of an argument holds, or only if it does not."""
    true, false = (0, 1) if holds else (1, 0)
    return [
        _step(_EQUAL, number, 0, 4),
        _step(_LOAD, _ARGUMENTS[argument]),
        _step(test, value, true, false),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _ERRNO | errno.EPERM),
    ]


def _step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, value)
