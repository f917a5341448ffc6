"""What a program is kept in: namespaces, a root of read-only libraries, Landlock, seccomp. Linux, by libc alone.

Each function raises OSError where the kernel does not allow its layer.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "pid": 0x20000000,
}
"""In the order they are entered: the user namespace gives the right to enter the others."""
NOBODY = 65534
ROOT = "/proc"
"""Where the new root is put together: it is everywhere, and nothing bound into the new root lies below it."""
WORK = "/program"
"""The working folder in there."""
_PID_MAX = "/proc/sys/kernel/pid_max"
_MOST_PIDS = 400  # the kernel takes 301 at least, and gives numbers from 300 on again: 100 at once
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
_RDONLY, _NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_REMOUNT, _KEPT_FLAGS = 32, 8 | 1024 | 2048  # no programs, no access times
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_READ, _LANDLOCK_READ_FILE, _LANDLOCK_LIST = 4 | 8, 4, 8  # files and folders, files, folders
_LANDLOCK_ALL = (1 << 13) - 1  # what the first version of Landlock knows
_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 24, 22, 38

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """A libc function that sets errno."""
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return call("syscall", ctypes.c_long(number), *words)


@contextlib.contextmanager
def naming(layer: str) -> Iterator[None]:
    """An OSError within says which layer it is about: `<layer>\\n<why>`."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{layer}\n{error}") from None


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    names = [None if text is None else text.encode() for text in (source, target, kind)]
    call("mount", *names, ctypes.c_ulong(flags), options.encode() if options else None)


def enter_user_namespace() -> None:
    """Root gets two users in there, itself and nobody (a helper that stays outside says so); others are nobody."""
    uid, gid = os.geteuid(), os.getegid()
    ours, theirs = socket.socketpair()
    helper = os.fork() if uid == 0 else 0
    if uid == 0 and helper == 0:
        theirs.recv(1)
        with contextlib.suppress(OSError):
            _write_maps(str(os.getppid()), f"0 0 1\n{NOBODY} {NOBODY} 1", f"0 0 1\n{NOBODY} {NOBODY} 1")
        os._exit(0)
    try:
        call("unshare", NAMESPACES["user"])
    finally:
        ours.send(b"x")
        ours.close()
        theirs.close()
        if helper:
            os.waitpid(helper, 0)
    if not _read("/proc/self/uid_map").strip():
        _write("/proc/self/setgroups", "deny")
        _write_maps("self", f"{NOBODY} {uid} 1", f"{NOBODY} {gid} 1")


def most_pids() -> int:
    """The kernel's largest number of a process, of the caller's pid namespace where it has one each (Linux 6.14)."""
    return int(_read(_PID_MAX))


def limit_pids(outside: int) -> None:
    """Bound the processes of the caller's pid namespace and those below it, for whom no limit holds: root.

    Args:
        outside: `most_pids` of the namespace around it. A new one of its own starts at the kernel's maximum; an equal
            number may be the whole machine's, which is left alone.
    """
    if most_pids() == outside:
        raise OSError(errno.EPERM, "kernel.pid_max may be the whole machine's")
    _write(_PID_MAX, str(_MOST_PIDS))


def build_root(libraries: list[str], hidden: list[str]) -> None:
    """Make the root a folder of nothing but read-only libraries, a few devices and an empty working folder.

    Args:
        libraries: Folders, or links to them, with absolute paths.
        hidden: Folders below them that are emptied.
    """
    mount(None, "/", None, _REC | _PRIVATE)
    mount("tmpfs", ROOT, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path in libraries:
        _bind_library(path)
    for path in hidden:
        if os.path.isdir(ROOT + path):
            mount("tmpfs", ROOT + path, "tmpfs", _RDONLY | _NOSUID | _NODEV, "size=4k,mode=755")
    os.mkdir(ROOT + "/dev")
    for path in _DEVICES:
        os.close(os.open(ROOT + path, os.O_CREAT | os.O_WRONLY, 0o600))
        mount(path, ROOT + path, None, _BIND)
    os.mkdir(ROOT + WORK)
    if not os.path.exists(ROOT + "/tmp"):
        os.symlink(WORK, ROOT + "/tmp")
    os.chdir(ROOT)
    syscall(_PIVOT_ROOT[os.uname().machine], b".", b".")
    call("umount2", b".", 2)  # detached: the old root is gone once nothing uses it
    os.chdir("/")
    _make_read_only("/", recursive=False)


def fresh_work(size: int) -> None:
    """An empty working folder of `size` bytes, in a mount namespace of the caller's own that ends with it."""
    call("unshare", NAMESPACES["mount"])
    mount("tmpfs", WORK, "tmpfs", _NOSUID | _NODEV, f"size={size},nr_inodes=1024,mode=777")
    os.chdir(WORK)


def drop_capabilities() -> None:
    for capability in range(64):
        with contextlib.suppress(OSError):
            call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    call("capset", header, nothing)


def no_new_privileges() -> None:
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def restrict_files(readable: list[str], listed: list[str]) -> None:
    """Landlock: files below `readable` and a few devices can be read, nothing else and nothing written.

    Args:
        listed: Folders where names can be seen, too, as an import needs it.
    """
    attributes = struct.pack("Q", _LANDLOCK_ALL)
    rules = syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    folders = [(path, _LANDLOCK_READ) for path in readable] + [(path, _LANDLOCK_LIST) for path in listed]
    for path, rights in [*folders, *((device, _LANDLOCK_READ_FILE) for device in _DEVICES)]:
        if os.path.exists(path):
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
            syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, file), 0)
            os.close(file)
    syscall(_LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def install_filter(program: bytes) -> None:
    """A seccomp filter, which stays for good."""
    code = ctypes.create_string_buffer(program, len(program))
    pointer = ctypes.addressof(code)
    call("prctl", _PR_SET_SECCOMP, 2, struct.pack("HxxxxxxP", len(program) // 8, pointer), 0, 0)


def _bind_library(path: str) -> None:
    os.makedirs(os.path.dirname(ROOT + path), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), ROOT + path)
        return
    os.makedirs(ROOT + path, exist_ok=True)
    mount(path, ROOT + path, None, _BIND | _REC)
    _make_read_only(ROOT + path, recursive=True)


def _make_read_only(path: str, *, recursive: bool) -> None:
    attributes = struct.pack("QQQQ", _RDONLY | _NOSUID | _NODEV, 0, 0, 0)
    try:
        syscall(_MOUNT_SETATTR, -100, path.encode(), 0x8000 if recursive else 0, attributes, len(attributes))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        kept = os.statvfs(path).f_flag & _KEPT_FLAGS  # a user namespace may add flags, not take any away
        mount(None, path, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV | kept)  # before Linux 5.12


def _write_maps(process: str, users: str, groups: str) -> None:
    _write(f"/proc/{process}/gid_map", groups)
    _write(f"/proc/{process}/uid_map", users)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
