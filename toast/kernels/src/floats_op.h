// What the float ops share. Knows MLX's arrays and streams; knows no kernel.
#pragma once
#include <optional>
#include <vector>

#include "op.h"
#include "threads.h"

namespace toast {

using Optional = std::optional<mx::array>;
using Arrays = std::vector<mx::array>;

// `a` itself when its last dimension is contiguous, else a contiguous copy.
inline mx::array rows_contiguous(const mx::array& a, const mx::Stream& s) {
  return a.shape(-1) == 1 || a.strides(-1) == 1 ? a : contiguous(a, s);
}

}  // namespace toast
