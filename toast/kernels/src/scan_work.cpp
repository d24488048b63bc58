// Who scores which vectors. The arithmetic is in scan.cpp.
#include "scan_work.h"

#include "kernels.h"
#include "threads.h"

namespace toast {

void run(const Scan& s) {
  constexpr size_t some = tuning::SCAN_ROWS;
  if (!s.rows) return;
  parallel((int)((s.rows + some - 1) / some), [&](int task) {
    size_t at = task * some;
    kernels().int8_scan(s.codes + at * s.n, s.scales + at, s.query, s.scores + at, std::min(some, s.rows - at), s.n);
  });
}

}  // namespace toast
