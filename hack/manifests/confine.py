"""Run a program confined as a container runtime confines a container's first process (Linux only).

`python -m hack.manifests.confine [--escalation] [--ungranted] -- PROGRAM ARGUMENT...`, as root. The steps and
their order are runc's (libcontainer/init_linux.go, finalizeNamespace): bounding set, user and group,
capability sets, no_new_privs, execve. Kubernetes has no ambient capabilities, and the inheritable set is
empty, so what the program may do in the end is the kernel's decision at execve (capabilities(7)).
"""

from __future__ import annotations

import ctypes
import os
import sys

from nodeagent.capture.privileges import CAP_NET_ADMIN

USER = 65532
"""User and group, as in manifests/base/daemonset.yaml."""

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 23, 24, 8, 38
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


def confine(*, escalation: bool, granted: bool) -> None:
    """Leave this process nothing but what a container with `drop: [ALL], add: [NET_ADMIN]` is started with.

    `escalation` is allowPrivilegeEscalation. `granted`: the runtime puts NET_ADMIN into the permitted set of
    a process that is not root, as containerd and CRI-O do; else into the bounding set only, as Docker does.

    Raises:
        OSError: this process is not privileged enough to give up privileges.
    """
    for capability in range(64):
        if capability != CAP_NET_ADMIN and _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            _call(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
    _call(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    _call(_libc.prctl(_PR_SET_KEEPCAPS, 0, 0, 0, 0))
    bits = 1 << CAP_NET_ADMIN if granted else 0
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable; then the same three for capabilities from 32 on
    _call(_libc.capset(header, (ctypes.c_uint32 * 6)(bits, bits, 0, 0, 0, 0)))
    if not escalation:
        _call(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _call(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(arguments: list[str]) -> None:
    """Confine this process and become the program after `--`."""
    end = arguments.index("--")
    confine(escalation="--escalation" in arguments[:end], granted="--ungranted" not in arguments[:end])
    os.execvp(arguments[end + 1], arguments[end + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
