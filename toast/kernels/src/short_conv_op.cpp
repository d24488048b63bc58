// LFM2's short convolution from its arrays. What it computes is in short_conv_work.cpp.
#include "short_conv_work.h"

#include "bindings.h"
#include "mixer_op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// The projection is [B, C, x], of which B x is convolved and multiplied by C.
MixerOp short_convolution(const mx::array& conv) {
  int n = conv.ndim() ? conv.shape(0) : 0;
  Arrays all{by_tap(conv, n)};
  size_t taps = all[0].shape(0), channels = n;
  ShortConvolution c{taps, channels, all[0].data<char>(), nullptr, type_of(all[0]), Activation::none, 2 * n, 0, n};
  return {{taps - 1,
           channels,
           0,
           0,
           0,
           channels,
           {3 * channels},
           [c](size_t B, size_t T, const std::vector<Projected>& projected, const MixerState& state, char* y) {
             run(c, B, T, projected[0], state, y);
           }},
          std::move(all)};
}

}  // namespace

void bind_short_conv(nb::module_& m) {
  m.def("short_convolution", &short_convolution, "conv"_a, "conv (channels, taps, 1); one projection [B, C, x].");
}

}  // namespace toast
