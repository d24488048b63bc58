// Who rotates which rows, and the frequencies of rope, kept for as long as the process lives.
#include "rope_work.h"

#include <cmath>
#include <map>
#include <mutex>

#include "threads.h"

namespace toast {

Frequencies inverse_frequencies(float base, int half) {
  static std::mutex mutex;
  static std::map<std::pair<float, int>, Frequencies> known;
  std::lock_guard<std::mutex> lock(mutex);
  auto& found = known[{base, half}];
  if (!found) {
    std::vector<float> f(half);
    for (int i = 0; i < half; i++) f[i] = (float)std::pow((double)base, -(double)i / half);
    found = std::make_shared<const std::vector<float>>(std::move(f));
  }
  return found;
}

Frequencies inverted(const float* x, int half) {
  std::vector<float> f(half);
  for (int i = 0; i < half; i++) f[i] = 1.f / x[i];
  return std::make_shared<const std::vector<float>>(std::move(f));
}

void rotate_all(const Rope& rope, const RopeWork& w) {
  auto at = [&](const RopeWork::Heads& x, int64_t b, int64_t n, int64_t t) {
    return x.data + (b * x.text + n * x.head + t * x.row) * (int64_t)size_of(w.type);
  };
  each_rows(w.B * w.T, w.N * w.D, [&](size_t first, size_t count) {
    Rotation rotation(rope);
    for (size_t row = first; row < first + count; row++) {
      int64_t b = row / w.T, t = row % w.T;
      rotation.set_position((float)t + (float)(w.offsets ? w.offsets[w.offset_a_text ? b : 0] : w.offset));
      for (size_t n = 0; n < w.N; n++) rotation.rotate(at(w.x, b, n, t), at(w.y, b, n, t), w.type, w.D);
    }
  });
}

}  // namespace toast
