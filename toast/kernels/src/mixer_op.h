// Mixers as MLX arrays: what each is made of is in the file named after it (delta_net_op.cpp, short_conv_op.cpp,
// mamba_op.cpp).
#pragma once
#include "recurrence_work.h"
#include "states_op.h"

namespace toast {

struct MixerOp {
  Mixer work;
  Arrays arrays;                     // that the work points into
  std::optional<mx::Dtype> dtype{};  // of projections, where a norm asks for its own

  // Throws where projections of these widths and dtype are not the mixer's.
  void check(const std::vector<int>& widths, mx::Dtype of) const;
};

// What a mixer keeps: of what is convolved, and its states, none of either where it has none.
inline mx::Shape kept_shape(const Mixer& m, int B) { return {B, (int)m.rows, (int)m.channels}; }
inline mx::Shape states_shape(const Mixer& m, int B) { return {B, (int)m.heads, (int)m.dv, (int)m.dk}; }

// Brought up to date by the work: what a mixer keeps, before and after, which become `kept` and `states`.
MixerState take_state(const mx::array* before, const mx::array* states_before, const Mixer& m, int B, mx::Dtype dtype,
                      OptionalArray& kept, OptionalArray& states, const mx::Stream& s);

// ---- for those who make one
inline constexpr Refuse refuse_mixer{"[Mixer] "};
// x computed and in one piece, which threads share; throws where it has another shape.
mx::array numbers(const mx::array& x, const mx::Shape& shape);
// A short convolution's weights (channels, taps, 1), as MLX has them, by taps.
mx::array by_tap(const mx::array& conv, int channels);
inline Numbers numbers_of(const mx::array& x) { return {x.data<char>(), type_of(x)}; }

}  // namespace toast
