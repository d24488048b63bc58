// The CPU affinity and the quotas of cgroups: more threads than a quota pays for are stopped for the rest of a period.
#include "cpus.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

namespace toast {
namespace {

constexpr double NONE = std::numeric_limits<double>::infinity();

// The CPUs that a folder's quota is worth: "max 100000" and -1 are none.
double quota_of(const std::string& folder) {
  double quota, period;
  std::ifstream both(folder + "/cpu.max"), one(folder + "/cpu.cfs_quota_us"), other(folder + "/cpu.cfs_period_us");
  bool found = (both >> quota >> period) || (one >> quota && other >> period);
  return found && quota > 0 && period > 0 ? quota / period : NONE;
}

// The least of a cgroup's and of those above it. A container may not see the upper ones, or see itself as the root.
double least_quota(const std::string& root, std::string path) {
  double found = quota_of(root);
  while (path.size() > 1) {
    found = std::min(found, quota_of(root + path));
    path.resize(path.find_last_of('/', path.size() - 1));
  }
  return found;
}

int affinity() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

std::string read(const char* path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

int quota_cpus(const std::string& cgroups, const std::string& root) {
  double found = NONE;
  std::istringstream lines(cgroups);
  for (std::string line; std::getline(lines, line);) {  // "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1
    size_t first = line.find(':'), second = line.find(":/", first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty())
      found = std::min(found, least_quota(root, path));
    else if (("," + controllers + ",").find(",cpu,") != std::string::npos)
      found = std::min(found, least_quota(root + "/" + controllers, path));
  }
  return found == NONE ? 0 : (int)std::min(std::ceil(found), 1e6);
}

int usable_cpus() {
  int all = affinity(), paid = quota_cpus(read("/proc/self/cgroup"), "/sys/fs/cgroup");
  return std::max(1, paid ? std::min(all, paid) : all);
}

}  // namespace toast
