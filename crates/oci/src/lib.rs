//! Kernel mechanisms of containers: namespaces, cgroups, mounts, seccomp, processes
