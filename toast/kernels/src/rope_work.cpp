// The frequencies of rope, kept for as long as the process lives.
#include "rope_work.h"

#include <cmath>
#include <map>
#include <mutex>

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

}  // namespace toast
