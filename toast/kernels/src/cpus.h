// How many CPUs this process may use. Knows the kernel's files; knows no threads.
#pragma once
#include <string>

namespace toast {

// Those of the affinity, or fewer where a cgroup's quota gives less time; at least 1.
int usable_cpus();

// How many CPUs the smallest quota of a process's cgroups is worth, rounded up; 0: there is none.
// cgroups: what its /proc/PID/cgroup says; root: where cgroups are mounted. In cgroups(7): cpu.max of version 2,
// cpu.cfs_quota_us and cpu.cfs_period_us of version 1.
int quota_cpus(const std::string& cgroups, const std::string& root);

}  // namespace toast
