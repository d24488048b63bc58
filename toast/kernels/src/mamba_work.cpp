// Mamba-2's steps in their order.
#include "mamba_work.h"

#include <memory>

#include "threads.h"

namespace toast {
namespace {

// y[rows, n] -> y silu(gate), normed
void end_rows(const Mamba& m, size_t B, size_t T, const Projected& projected, char* y) {
  size_t n = m.inner(), row = n * size_of(projected.type);
  each_rows(B * T, n, [&](size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
      char* one = y + i * row;
      kernels().activate(Activation::silu, projected.at(i / T, i % T, 0), one, one, projected.type, n);
      if (m.norm.weight) kernels().rms_norm(one, one, projected.type, 1, n, m.norm);
    }
  });
}

}  // namespace

void run(const Mamba& m, size_t B, size_t T, const Projected& projected, const MixerState& state, char* y) {
  Type type = projected.type;
  size_t wide = m.convolution.channels, groups = m.heads / m.share, keys = groups * m.dk;
  // not a thread's scratch, which stays: a long prompt's is tens of megabytes
  auto convolved = std::make_unique_for_overwrite<char[]>(B * T * wide * size_of(type));
  run(m.convolution, B, T, projected, state, convolved.get());
  auto heads = [&](size_t first, size_t count, size_t D) {
    const char* data = convolved.get() + first * size_of(type);
    return Heads{data, type, (int64_t)(T * wide), (int64_t)wide, 0, count, D};
  };
  Heads dt{projected.at(0, 0, m.inner() + wide), type, projected.text, projected.row, 0, m.heads, 1};
  run(StateSpace{{B, T, m.heads, m.share, m.dk, m.dv, state.states, y, type},
                 heads(0, m.heads, m.dv),
                 heads(m.inner(), groups, m.dk),
                 heads(m.inner() + keys, groups, m.dk),
                 dt,
                 m.A_log,
                 m.D,
                 m.dt_bias,
                 m.least,
                 m.most});
  end_rows(m, B, T, projected, y);
}

}  // namespace toast
